//! The program by which publish-image speaks to AWS.

fn main() -> std::process::ExitCode {
    dock_registry_aws::main()
}
