//! Which process of this machine listens on a port.

/// The number and the name of the process of this machine that listens on a TCP port, from `/proc`: processes of other
/// users are only visible to root.
#[cfg(target_os = "linux")]
pub fn process_of(port: u16) -> Option<(u32, String)> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            let target = std::fs::read_link(descriptor.path()).unwrap_or_default();
            let target = target.to_string_lossy();
            let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            if inode.is_some_and(|inode| inodes.iter().any(|found| found == inode)) {
                let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                return Some((pid, name.trim().to_owned()));
            }
        }
    }
    None
}

/// Without Linux's `/proc`, there is no way to find it.
#[cfg(not(target_os = "linux"))]
pub fn process_of(_: u16) -> Option<(u32, String)> {
    None
}

/// Inodes of the sockets that listen on this port, in the format of `/proc/net/tcp` (proc(5)).
#[cfg(target_os = "linux")]
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (local, state) = (fields.nth(1)?, fields.nth(1)?);
            let (_, hex) = local.rsplit_once(':')?;
            let matches = u16::from_str_radix(hex, 16).ok()? == port && state == LISTEN;
            matches.then(|| fields.nth(5).map(str::to_owned))?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(process_of(port).map(|(pid, _)| pid), Some(std::process::id()));
    }
}
