//! Keys as openssl makes them, and what is not a key.

use std::fs;
use std::process::Command;

use super::*;

/// What openssl makes with these arguments.
fn openssl(folder: &Path, arguments: &[&str]) {
    let made = Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// Pairs of keys, made by openssl: `NAME.key` and `NAME.pub`.
fn keys() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let p256 = ["-pkeyopt", "ec_paramgen_curve:P-256"];
    let p384 = ["-pkeyopt", "ec_paramgen_curve:P-384"];
    for (name, algorithm, options) in [
        ("ed", "ed25519", &[][..]),
        ("p256", "EC", &p256),
        ("p384", "EC", &p384),
        ("other", "ed25519", &[]),
    ] {
        let key = format!("{name}.key");
        let make = ["genpkey", "-algorithm", algorithm, "-out", &key];
        openssl(folder.path(), &[&make[..], options].concat());
        openssl(
            folder.path(),
            &["pkey", "-in", &key, "-pubout", "-out", &format!("{name}.pub")],
        );
        mode(&folder.path().join(&key), 0o600);
    }
    folder
}

fn mode(file: &Path, mode: u32) {
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
}

fn env(pairs: &[(&str, &str)]) -> Env {
    Env::from_pairs(pairs.iter().copied())
}

#[test]
fn the_keys_of_openssl_sign_and_verify() {
    let folder = keys();
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    for name in ["ed", "p256"] {
        let key = VerdictKey::parse(&read(&format!("{name}.key"))).unwrap();
        let public = VerdictPublicKey::parse(&read(&format!("{name}.pub"))).unwrap();
        assert_eq!(*key.public(), public, "{name}");
        let signature = key.sign(b"message").unwrap();
        assert!(public.verifies(b"message", &signature));
        assert!(!public.verifies(b"messages", &signature));
        let other = VerdictPublicKey::parse(&read("other.pub")).unwrap();
        assert!(!other.verifies(b"message", &signature));
        // openssl says the same of the key's name, and of the signature.
        let path = folder.path();
        openssl(
            path,
            &[
                "pkey",
                "-pubin",
                "-in",
                &format!("{name}.pub"),
                "-outform",
                "DER",
                "-out",
                "spki",
            ],
        );
        assert_eq!(public.id(), Digest::of(&fs::read(path.join("spki")).unwrap()));
        fs::write(path.join("message"), "message").unwrap();
        fs::write(path.join("signature"), &signature).unwrap();
        let public = format!("{name}.pub");
        let verify = [
            "pkeyutl",
            "-verify",
            "-pubin",
            "-inkey",
            &public,
            "-rawin",
            "-in",
            "message",
            "-sigfile",
            "signature",
        ];
        let digest: &[&str] = if name == "p256" { &["-digest", "sha256"] } else { &[] };
        openssl(path, &[&verify[..], digest].concat());
        assert!(!format!("{key:?}").contains(&format!(
            "{:?}",
            &fs::read(path.join(format!("{name}.key"))).unwrap()[40..48]
        )));
    }
    assert_eq!(VerdictPublicKey::parse(&read("p384.pub")), Err(NoKey::Algorithm));
    assert_eq!(VerdictKey::parse(&read("p384.key")).unwrap_err(), NoKey::Algorithm);
}

#[test]
fn a_key_is_a_file_or_a_variable_and_never_an_argument() {
    let folder = keys();
    let path = folder.path();
    let pem = fs::read_to_string(path.join("ed.key")).unwrap();
    let expected = VerdictKey::parse(&pem).unwrap().public().clone();
    let public = |env: &Env, file: Option<&str>| {
        let found = VerdictPublicKey::of(env, file.map(Path::new), path);
        found.map_err(|error| (error.with_causes(), error.hint_text().unwrap_or_default().to_owned()))
    };
    assert_eq!(public(&env(&[]), None).unwrap(), None);
    for (variable, file) in [
        ("", Some("ed.key")),
        ("", Some("ed.pub")),
        ("other.key", Some("ed.key")),
        ("ed.key", None),
        (pem.as_str(), None),
    ] {
        let found = public(&env(&[(KEY_VARIABLE, variable)]), file).unwrap();
        assert_eq!(found.as_ref(), Some(&expected), "{variable} {file:?}");
    }
    mode(&path.join("ed.key"), 0o644);
    let (message, hint) = public(&env(&[]), Some("ed.key")).unwrap_err();
    assert!(message.ends_with("ed.key: its mode is 644"), "{message}");
    assert!(hint.starts_with("chmod 600 "), "{hint}");
    let (message, hint) = public(&env(&[]), Some(&pem)).unwrap_err();
    assert!(
        message.starts_with("--verdict-key takes the path of a file"),
        "{message}"
    );
    assert!(!format!("{message}{hint}").contains("PRIVATE"));
    let signing = VerdictKey::of(&env(&[]), Some(Path::new("ed.pub")), path).unwrap_err();
    assert!(
        signing
            .to_string()
            .ends_with("ed.pub is a public key, which signs nothing")
    );
    let (message, hint) = public(&env(&[]), Some("nowhere")).unwrap_err();
    assert!(message.contains("nowhere can't be read"), "{message}");
    assert!(hint.starts_with("make one: openssl genpkey"), "{hint}");
    let (message, _) = public(&env(&[]), Some(".")).unwrap_err();
    assert!(message.ends_with("is not a file"), "{message}");
}

#[test]
fn what_is_no_key_is_named_and_not_shown() {
    let folder = keys();
    let path = folder.path();
    openssl(
        path,
        &[
            "pkcs8",
            "-topk8",
            "-in",
            "p256.key",
            "-out",
            "encrypted.key",
            "-passout",
            "pass:secret",
        ],
    );
    openssl(path, &["pkey", "-in", "p256.key", "-traditional", "-out", "sec1.key"]);
    for (text, why) in [
        (
            fs::read_to_string(path.join("encrypted.key")).unwrap(),
            NoKey::Encrypted,
        ),
        (
            fs::read_to_string(path.join("sec1.key")).unwrap(),
            NoKey::Kind("EC PRIVATE KEY".to_owned()),
        ),
        (String::new(), NoKey::NoPem),
        ("-----BEGIN s3cr3t".to_owned(), NoKey::NoPem),
        (
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n".to_owned(),
            NoKey::Kind("OPENSSH PRIVATE KEY".to_owned()),
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_owned(),
            NoKey::Algorithm,
        ),
    ] {
        assert_eq!(VerdictKey::parse(&text).unwrap_err(), why, "{text}");
    }
}
