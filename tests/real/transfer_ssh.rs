//! transfer-image to a machine that ssh reaches, by its address and by its moniker, with the agent between.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use dockerutils_core::agent::Agent;
use dockerutils_core::docks::{Access, Dock, SshAccess};
use dockerutils_core::env::Env;
use dockerutils_test_support::lab::{self, LabEngine, Store, Suite, Throwaway};
use dockerutils_test_support::wait;
use dockerutils_test_support::{Invocation, Sandbox, SlowLink};
use dockerutils_tests::moving::{Moving, docker, partial_images};
use dockerutils_tests::packed::{self, Packing};

/// A home whose ssh knows the dock, and nothing of the machine's own configuration.
struct SshHome<'a> {
    sandbox: &'a Sandbox,
    path: String,
}

impl<'a> SshHome<'a> {
    fn new(sandbox: &'a Sandbox, known_hosts: &str) -> Self {
        let ssh = sandbox.home().join(".ssh");
        let bin = sandbox.home().join("bin");
        std::fs::create_dir_all(&ssh).unwrap();
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::write(ssh.join("known_hosts"), known_hosts).unwrap();
        let config = format!(
            "Host *\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n",
            ssh.join("known_hosts").display()
        );
        std::fs::write(ssh.join("config"), config).unwrap();
        // OpenSSH reads the configuration of the password database's home, whatever HOME says.
        let wrapper = bin.join("ssh");
        let text = format!(
            "#!/bin/sh\nexec /usr/bin/ssh -F {} \"$@\"\n",
            ssh.join("config").display()
        );
        std::fs::write(&wrapper, text).unwrap();
        std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            sandbox,
            path: format!("{}:/usr/bin:/bin", bin.display()),
        }
    }

    fn run(&self, invocation: Invocation<'a>, key: &Path) -> Invocation<'a> {
        invocation
            .env("PATH", &self.path)
            .env("SSH_KEY", key)
            .limit(Duration::from_secs(120))
            .any_stdout()
            .any_stderr()
    }

    /// Ends the agent, which would end by itself some minutes later.
    fn stop(&self, address: std::net::SocketAddr, key: &Path) {
        let home = self.sandbox.home();
        let runtime = home.with_file_name("runtime");
        let env = Env::from_pairs([
            ("HOME", home.to_str().unwrap()),
            ("XDG_RUNTIME_DIR", runtime.to_str().unwrap()),
            ("PATH", &self.path),
        ]);
        let dock = Dock {
            moniker: address.ip().to_string(),
            access: Access::Ssh(SshAccess {
                host: address.ip().to_string(),
                user: Some("ann".into()),
                port: Some(address.port()),
                identity: Some(key.to_owned()),
                docker_socket: None,
            }),
            workspace: None,
            forward: dockerutils_core::docks::Forward::None,
            mounts: dockerutils_core::docks::MountPaths::default(),
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async { Agent::of(&dock, &env).unwrap().stop().await.unwrap() });
    }
}

fn layers(engine: &LabEngine, image: &str) -> String {
    docker(engine, &["image", "inspect", "--format={{json .RootFS.Layers}}", image])
}

#[test]
fn an_image_goes_to_an_address_with_the_key_of_the_environment_and_survives_a_cut() {
    let (from, to) = (lab::engine("20").unwrap(), lab::engine("26").unwrap());
    let ssh = to.ssh().unwrap();
    let link = SlowLink::start(ssh.address, Duration::from_millis(5), Some(80_000_000)).unwrap();
    let moving = Moving::on("ssh", &[&from, &to]);
    let layer = "RUN head -c 6000000 /dev/urandom > /file\n";
    moving.build(&from, &format!("FROM dockerutils-lab-base:1\n{layer}{layer}{layer}"));
    let home = SshHome::new(moving.sandbox(), &ssh.known_hosts_at(link.address()));
    let address = format!("ann@{}", link.address());
    let invocation = moving.transfer(&from).args([&moving.name, &address, "--json"]);
    let running = home.run(invocation, &ssh.key).spawn();
    let image = docker(&from, &["image", "inspect", "--format={{.Id}}", &moving.name]);
    wait::until("a layer that is kept", || !partial_images(&to, &image).is_empty());
    link.drop_connections();
    let outcome = running.wait();
    home.stop(link.address(), &ssh.key);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(outcome.json()["images"][0]["status"], "transferred", "{outcome}");
    assert_eq!(layers(&to, &moving.name), layers(&from, &moving.name));
    assert!(partial_images(&to, &image).is_empty());
}

#[test]
fn a_dock_without_room_is_told_before_anything_is_sent() {
    // A layer of 300 kB that is unpacked to 100 MB, and one of 80 MB as it is.
    let from = lab::engine("28-containerd").unwrap();
    for (store, packing, content) in [
        (Store::Classic, Packing::Gzip, vec![7; 100_000_000]),
        (Store::Containerd, Packing::Plain, vec![7; 80_000_000]),
    ] {
        let throwaway = Throwaway::start(Suite::Trixie, store, Some(64)).unwrap();
        let to = throwaway.engine();
        let ssh = to.ssh().unwrap();
        let link = SlowLink::start(ssh.address, Duration::ZERO, None).unwrap();
        let moving = Moving::on("room", &[&from]);
        let image = packed::image(&[
            ("file", &content, packing),
            ("name", moving.name.as_bytes(), Packing::Plain),
        ]);
        let file = moving.sandbox().write("archive.tar", &image.archive);
        docker(&from, &["load", "--input", file.to_str().unwrap()]);
        docker(&from, &["tag", &image.id, &moving.name]);
        let home = SshHome::new(moving.sandbox(), &ssh.known_hosts_at(link.address()));
        let address = format!("ann@{}", link.address());
        let before = docker(to, &["images", "--all", "--quiet", "--no-trunc"]);
        for option in ["--dry-run", "--json"] {
            let invocation = moving.transfer(&from).args([&moving.name, &address, option]);
            let outcome = home.run(invocation, &ssh.key).code(1).run();
            let said = &outcome.stderr;
            assert!(
                said.contains(&format!("{address} has ")) && said.contains(" free, and needs "),
                "{outcome}"
            );
            assert!(
                said.contains("\n\nhint: make room there: docker system prune\n"),
                "{outcome}"
            );
        }
        home.stop(link.address(), &ssh.key);
        assert!(link.bytes().0 < 200_000, "{:?}", link.bytes());
        assert_eq!(docker(to, &["images", "--all", "--quiet", "--no-trunc"]), before);
    }
}
