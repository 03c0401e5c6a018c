//! A machine's own ID: random, made once, and kept in the user's state directory. It distinguishes two machines that
//! have the same name, user and paths.
//!
//! There is a file for each machine that the state directory has been on, named after a digest of what the system itself
//! tells machines apart by. So the copy of a home on another machine gets an ID of its own there, and a home that several
//! machines mount has one for each. The system's own ID leaves the machine in no form, as machine-id(5) asks for.

use std::fs::DirBuilder;
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::agent::paths::state_directory;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::hexadecimal::{self, hex, is_hex};
use crate::hint;
use crate::{private_file, project_file};

/// How many digits an ID has.
const LENGTH: usize = 32;
/// How many bytes of the digest name a file.
const DIGEST: usize = 8;
/// Where Linux has the system's own ID: machine-id(5).
#[cfg(target_os = "linux")]
const SYSTEM: &str = "/etc/machine-id";

/// This machine's ID for this user: 32 hexadecimal digits. A missing or damaged ID is made anew; all processes that ask
/// at the same moment get the same one.
///
/// # Errors
/// A state directory that can't be written, or a system without random numbers.
pub fn machine_id(env: &Env) -> Result<String> {
    made(&state_directory(env), system_id().as_deref())
}

/// Like [`machine_id`], but only an ID that exists already; nothing is made.
pub fn known_machine_id(env: &Env) -> Option<String> {
    read(&file(&state_directory(env), system_id().as_deref()))
        .ok()
        .flatten()
}

fn made(state: &Path, system: Option<&str>) -> Result<String> {
    let file = file(state, system);
    let failed = |path: &Path, cause: io::Error| {
        Error::failed(format!("the ID of this machine can't be kept in {}", path.display()))
            .because(cause)
            .hint(hint!("look at it: ls -ld {}", path.display()))
    };
    if let Some(id) = read(&file).map_err(|cause| failed(&file, cause))? {
        return Ok(id);
    }
    let directory = DirBuilder::new().recursive(true).mode(0o700).create(state);
    directory.map_err(|cause| failed(state, cause))?;
    // If several processes find no ID, one makes it, and the others find the new one.
    let path = file.with_extension("lock");
    let lock = private_file::open_lock(&path).map_err(|cause| failed(&path, cause))?;
    lock.lock().map_err(|cause| failed(&path, cause))?;
    if let Some(id) = read(&file).map_err(|cause| failed(&file, cause))? {
        return Ok(id);
    }
    let id = hexadecimal::random::<{ LENGTH / 2 }>()?;
    private_file::replace(&file, format!("{id}\n").as_bytes()).map_err(|cause| failed(&file, cause))?;
    Ok(id)
}

/// Where the ID is kept on a machine that the system calls so; on one that has no name for itself, in the one file for all
/// such.
fn file(state: &Path, system: Option<&str>) -> PathBuf {
    let name = match system {
        Some(system) => {
            let digest = Sha256::digest(format!("dockerutils machine\0{system}"));
            format!("machine-{}", hex(digest.get(..DIGEST).unwrap_or_default()))
        }
        None => "machine".to_owned(),
    };
    state.join(name).with_extension("id")
}

/// The ID in a file; `None` where there is no file, or what is in it is no ID: it was damaged, is a link, or another user's.
fn read(file: &Path) -> io::Result<Option<String>> {
    let opened = match project_file::open(file, false) {
        Ok((opened, _)) => opened,
        // Only for what a new one can take the place of: a passing fault must not cost the machine its ID.
        Err(cause)
            if matches!(
                cause.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied
            ) || cause.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) =>
        {
            return Ok(None);
        }
        Err(cause) => return Err(cause),
    };
    let mut text = Vec::new();
    opened.take(LENGTH as u64 + 2).read_to_end(&mut text)?;
    let id = String::from_utf8(text).ok();
    let id = id.as_deref().and_then(|text| text.strip_suffix('\n'));
    Ok(id.filter(|id| is_id(id)).map(str::to_owned))
}

fn is_id(text: &str) -> bool {
    is_hex(text, LENGTH)
}

/// What the system tells this machine from others by; `None` where it does not. (In a container there is none, or an empty
/// file; `uninitialized` while the first boot goes on.)
#[cfg(target_os = "linux")]
fn system_id() -> Option<String> {
    let (file, _) = project_file::open(Path::new(SYSTEM), true).ok()?;
    let mut text = String::new();
    file.take(LENGTH as u64 + 2).read_to_string(&mut text).ok()?;
    Some(text.trim_end().to_owned()).filter(|id| is_id(id))
}

/// The same: the UUID that the firmware has.
#[cfg(target_os = "macos")]
fn system_id() -> Option<String> {
    let output = std::process::Command::new("/usr/sbin/ioreg")
        .args(["-rd1", "-c", "IOPlatformExpertDevice"])
        .stdin(std::process::Stdio::null())
        .output()
        .ok()?;
    platform_uuid(&String::from_utf8_lossy(&output.stdout))
}

/// The same, on what nobody has tried.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn system_id() -> Option<String> {
    None
}

/// The UUID in what `ioreg` prints, in a line `"IOPlatformUUID" = "..."`.
#[cfg(any(target_os = "macos", test))]
fn platform_uuid(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let uuid = line.trim().strip_prefix("\"IOPlatformUUID\" = \"")?.strip_suffix('"')?;
        (!uuid.is_empty()).then(|| uuid.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::sync::Barrier;

    use super::*;

    const SYSTEM_A: Option<&str> = Some("0123456789abcdef0123456789abcdef");
    const SYSTEM_B: Option<&str> = Some("fedcba9876543210fedcba9876543210");

    #[test]
    fn an_id_is_made_once_and_is_its_users_alone() {
        let home = tempfile::tempdir().unwrap();
        let env = Env::from_pairs([("HOME", home.path().to_str().unwrap())]);
        assert_eq!(known_machine_id(&env), None);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "looking makes nothing");
        let id = machine_id(&env).unwrap();
        assert!(is_id(&id), "{id}");
        assert_eq!(machine_id(&env).unwrap(), id);
        assert_eq!(known_machine_id(&env).as_ref(), Some(&id));
        let file = file(&state_directory(&env), system_id().as_deref());
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        let other = Env::from_pairs([("HOME", other.path().to_str().unwrap())]);
        assert_ne!(machine_id(&other).unwrap(), id);
    }

    #[test]
    fn the_copy_of_a_home_on_another_machine_has_an_id_of_its_own_and_the_first_keeps_its() {
        let state = tempfile::tempdir().unwrap();
        let a = made(state.path(), SYSTEM_A).unwrap();
        let b = made(state.path(), SYSTEM_B).unwrap();
        let nameless = made(state.path(), None).unwrap();
        assert!(a != b && a != nameless && b != nameless);
        for (system, id) in [(SYSTEM_A, a), (SYSTEM_B, b), (None, nameless)] {
            assert_eq!(made(state.path(), system).unwrap(), id);
        }
        for entry in fs::read_dir(state.path()).unwrap() {
            let entry = entry.unwrap();
            let text = entry.file_name().into_string().unwrap() + &fs::read_to_string(entry.path()).unwrap();
            let system = [SYSTEM_A.unwrap(), SYSTEM_B.unwrap()];
            assert!(system.iter().all(|system| !text.contains(&system[..16])), "{text}");
        }
    }

    #[test]
    fn what_is_damaged_is_made_anew() {
        let state = tempfile::tempdir().unwrap();
        let file = file(state.path(), SYSTEM_A);
        let whole = made(state.path(), SYSTEM_A).unwrap();
        let damaged: [Vec<u8>; 6] = [
            Vec::new(),
            whole.clone().into_bytes(),
            whole.as_bytes()[..31].to_vec(),
            format!("{whole}\n\n").into_bytes(),
            format!("{}\n", whole.to_uppercase().replace(char::is_numeric, "G")).into_bytes(),
            vec![0xff; 100_000],
        ];
        for text in damaged {
            fs::write(&file, &text).unwrap();
            let id = made(state.path(), SYSTEM_A).unwrap();
            assert!(is_id(&id) && id != whole, "{text:?}");
            assert_eq!(made(state.path(), SYSTEM_A).unwrap(), id);
        }
        // Nobody is waited for, and a link is not followed.
        fs::remove_file(&file).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &file, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        made(state.path(), SYSTEM_A).unwrap();
        fs::remove_file(&file).unwrap();
        let elsewhere = state.path().join("elsewhere");
        fs::write(&elsewhere, format!("{whole}\n")).unwrap();
        symlink(&elsewhere, &file).unwrap();
        let id = made(state.path(), SYSTEM_A).unwrap();
        assert_ne!(id, whole);
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), format!("{whole}\n"));
        // What a file can't take the place of is said.
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        let error = made(state.path(), SYSTEM_A).unwrap_err();
        assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    }

    #[test]
    fn who_asks_at_the_same_moment_gets_the_same() {
        let state = tempfile::tempdir().unwrap();
        // Once with nothing there, once with something damaged.
        for _ in 0..2 {
            let barrier = Barrier::new(8);
            let ids: Vec<String> = std::thread::scope(|scope| {
                let ask = || {
                    barrier.wait();
                    made(state.path(), SYSTEM_A).unwrap()
                };
                let asked: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
                asked.into_iter().map(|asked| asked.join().unwrap()).collect()
            });
            assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
            fs::write(file(state.path(), SYSTEM_A), "damaged").unwrap();
        }
    }

    #[test]
    fn the_firmwares_uuid_is_found_in_what_ioreg_prints() {
        let text = "+-o J314sAP  <class IOPlatformExpertDevice>\n    {\n      \"IOPlatformSerialNumber\" = \"C02X\"\n      \
                    \"IOPlatformUUID\" = \"2B1C7E0A-5D3F-5E11-9A0C-0123456789AB\"\n    }\n";
        let uuid = "2B1C7E0A-5D3F-5E11-9A0C-0123456789AB";
        assert_eq!(platform_uuid(text).as_deref(), Some(uuid));
        assert_eq!(platform_uuid("\"IOPlatformUUID\" = \"\"\n"), None);
        assert_eq!(platform_uuid(""), None);
    }
}
