//! `--platform`: the names of operating systems and processors, in the one spelling that the engine's
//! images use (containerd's `platforms` package).

const SYSTEMS: [&str; 16] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
];
const PROCESSORS: [&str; 24] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

/// `linux/x86_64` as `linux/amd64`, and so on; half of it is taken from this machine, as docker does.
pub(super) fn normalize(text: &str) -> Result<String, String> {
    let legal = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    let parts: Vec<&str> = text.split('/').collect();
    if !parts.iter().all(|part| legal(part)) || parts.first().is_some_and(|system| system.contains('.')) {
        return Err("is not a platform, such as linux/amd64".to_owned());
    }
    match parts.as_slice() {
        [one] => {
            let system = system(one);
            if SYSTEMS.contains(&system.as_str()) {
                return Ok(format!("{system}/{}", host_processor()));
            }
            let (processor, variant) = processor(one, "");
            if !PROCESSORS.contains(&processor.as_str()) {
                return Err("is neither an operating system nor a processor".to_owned());
            }
            Ok(join(host_system(), &processor, implied(&processor, &variant)))
        }
        [os, arch] => {
            let (processor, variant) = processor(arch, "");
            Ok(join(&system(os), &processor, implied(&processor, &variant)))
        }
        [os, arch, variant] => {
            let (processor, variant) = processor(arch, variant);
            let variant = if processor == "arm64" && variant.is_empty() {
                "v8".to_owned()
            } else {
                variant
            };
            Ok(join(&system(os), &processor, &variant))
        }
        _ => Err("has more than three parts".to_owned()),
    }
}

/// A platform in the form in which BuildKit gives it to a Dockerfile: the first in `--platform`, else Linux on this
/// machine's processor, which engines run.
pub(in crate::docker) fn of_linux(named: Option<&str>) -> String {
    let first = named.and_then(|named| named.split(',').next());
    let platform = first
        .and_then(|named| normalize(named.trim()).ok())
        .unwrap_or_else(|| format!("linux/{}", host_processor()));
    match platform.as_str() {
        "linux/arm" => "linux/arm/v7".to_owned(),
        "linux/arm64/v8" => "linux/arm64".to_owned(),
        _ => platform,
    }
}

fn join(system: &str, processor: &str, variant: &str) -> String {
    if variant.is_empty() {
        format!("{system}/{processor}")
    } else {
        format!("{system}/{processor}/{variant}")
    }
}

/// For 32-bit ARM without a variant, the engine chooses.
fn implied<'a>(processor: &str, variant: &'a str) -> &'a str {
    if processor == "arm" && variant == "v7" {
        ""
    } else {
        variant
    }
}

fn system(name: &str) -> String {
    match name.to_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        name => name.to_owned(),
    }
}

fn processor(name: &str, variant: &str) -> (String, String) {
    let (name, variant) = (name.to_lowercase(), variant.to_lowercase());
    let (name, variant) = match (name.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (name.to_owned(), variant.to_owned())
}

fn host_system() -> &'static str {
    match std::env::consts::OS {
        "macos" => "darwin",
        system => system,
    }
}

fn host_processor() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        processor => processor,
    }
}
