//! `publish-image` at a terminal: a missing login to Docker Hub is asked for, and is not shown.

use base64::Engine as _;
use dockerutils_test_support::{Reply, Sandbox, ScriptedEngine, Terminal};
use rustix::process::Signal;
use serde_json::json;

const SECRET: &str = "n0b0dy-sees-this";

/// An engine with the image, which pushes it wherever it is told to.
fn engine() -> ScriptedEngine {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let pushed = [
        json!({ "status": "The push refers to repository [docker.io/ann/sample-dev]" }),
        json!({ "status": "Pushed", "progressDetail": {}, "id": "0123456789ab" }),
        json!({ "status": format!("tester: digest: {digest} size: 527") }),
    ];
    ScriptedEngine::start()
        .on("GET", "/images/*/json", Reply::json(200, &json!({ "Id": "sha256:1" })))
        .on("POST", "/images/*/tag", Reply::empty(201))
        .on("POST", "/images/*/push", Reply::stream(&pushed))
}

/// publish-image at a terminal.
fn publish(sandbox: &Sandbox, engine: &ScriptedEngine) -> Terminal {
    let publish = sandbox.command("publish-image").arg("dev").engine(engine);
    publish.env("NO_COLOR", "1").at_terminal()
}

fn project() -> Sandbox {
    Sandbox::new().file("docker/dev/Dockerfile", "FROM scratch\n")
}

#[test]
fn a_login_is_asked_for_and_used_once() {
    let (sandbox, engine) = (project(), engine());
    let mut terminal = publish(&sandbox, &engine);
    terminal.expect("User at Docker Hub: ");
    terminal.type_in("ann\n");
    terminal.expect("Password or access token of ann: ");
    terminal.wait_for_silence();
    terminal.type_in(&format!("{SECRET}\n"));
    let (code, screen) = terminal.end();
    assert_eq!(code, Some(0), "{screen}");
    assert!(!screen.contains(SECRET), "{screen}");
    assert!(screen.contains("docker push ann/sample-dev:tester"), "{screen}");
    assert!(
        screen.trim_end().ends_with("docker pull ann/sample-dev:tester"),
        "{screen}"
    );
    let request = engine.request("POST", "/images/ann/sample-dev/push");
    let header = base64::engine::general_purpose::URL_SAFE.decode(request.header("x-registry-auth").unwrap());
    let header: serde_json::Value = serde_json::from_slice(&header.unwrap()).unwrap();
    assert_eq!(
        (&header["username"], &header["password"]),
        (&json!("ann"), &json!(SECRET))
    );
    assert!(!sandbox.home().join(".docker").exists(), "nothing is kept");
}

#[test]
fn an_interrupt_at_the_question_mends_the_terminal() {
    for keys in ["\u{3}", ""] {
        let (sandbox, engine) = (project(), engine());
        let mut terminal = publish(&sandbox, &engine);
        terminal.expect("User at Docker Hub: ");
        terminal.type_in("ann\n");
        terminal.expect("Password or access token of ann: ");
        terminal.wait_for_silence();
        terminal.type_in("half");
        terminal.wait_until_taken();
        if keys.is_empty() {
            terminal.signal(Signal::TERM);
        } else {
            terminal.type_in(keys);
        }
        let (code, screen) = terminal.end();
        assert_eq!(code, Some(130), "{screen}");
        assert!(screen.contains("interrupted") && !screen.contains("half"), "{screen}");
        assert!(engine.requests().iter().all(|request| !request.path.ends_with("/push")));
    }
}

#[test]
fn no_answer_is_no_login() {
    let (sandbox, engine) = (project(), engine());
    let mut terminal = publish(&sandbox, &engine);
    terminal.expect("User at Docker Hub: ");
    terminal.type_in("\n");
    let (code, screen) = terminal.end();
    assert_eq!(code, Some(1), "{screen}");
    assert!(screen.contains("hint: docker login"), "{screen}");
}
