//! Tests the images of a stack, those in a registry or those on the engine.
//!
//! ```text
//! $ test-stack 2026.10-main
//! IMAGE    REFERENCE                          TESTS        RESULT          TIME
//! base     ghcr.io/team/base:2026.10-main     basic        12 tests passed  8.1 s
//! science  ghcr.io/team/science:2026.10-main  basic        1 of 14 tests failed  9.4 s
//! ```

use std::path::PathBuf;

use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use dockerutils_core::cli::{Command, Context, EngineArgs};
use dockerutils_core::error::{ExitStatus, Result};
use dockerutils_stack::suites::TestKind;
use dockerutils_stack::testing::{self, TestArgs};

/// Test the images of a stack, those in a registry or those on the engine
///
/// Basic tests are in tests_common/ beside the images' directories and in test/ of an image; integration tests in
/// integration_tests/, where spec.yml says that there are some. They run on this machine: pytest from the root of the
/// repository, with the image in TEST_IMAGE and the root on PYTHONPATH, then each executable file in these folders. Workflow tests
/// run in the image, where they are at /opt/workflow_tests. With TAG, what the registry has under that tag is pulled and tested;
/// and how that ended is attached to it there, for tag-stack; without it, what the engine has under the tag of the branch. JUnit files are kept in artifacts/, and all output in logs/.
#[derive(Debug, Parser)]
#[command(
    after_long_help = "Exit codes: 0 all passed; 1 a test failed, or a registry refused; 2 wrong usage or configuration; 3 an engine \
or a registry can't be reached; 130 interrupted."
)]
pub struct Args {
    /// The tag in the registry, such as 2026.10-main
    pub tag: Option<String>,
    /// Only tests of this kind; basic and integration tests without it
    #[arg(long = "kind", value_name = "KIND", value_parser = kind_parser())]
    pub kinds: Vec<TestKind>,
    /// Only this image
    #[arg(long, value_name = "IMAGE")]
    pub only: Vec<String>,
    /// Only this plan: a name below plans, or a prefix of tags
    #[arg(long, value_name = "PLAN")]
    pub plan: Option<String>,
    /// The directory with spec.yml; images or docker without it
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Make artifacts/ and logs/ there, and not in the root of the repository
    #[arg(long, value_name = "DIR")]
    pub artifacts: Option<PathBuf>,
    /// Give the GPUs to workflow tests
    #[arg(short = 'g', long, visible_alias = "use_gpu")]
    pub use_gpu: bool,
    /// Leave the registry alone: do not attach to the images how their tests ended
    #[arg(long)]
    pub no_verdict: bool,
    /// Sign that with the private key in this file: PKCS #8 in PEM, Ed25519 or P-256; else DOCKERUTILS_VERDICT_KEY
    #[arg(long, value_name = "FILE", conflicts_with = "no_verdict")]
    pub verdict_key: Option<PathBuf>,
    /// What every command takes that uses an engine.
    #[command(flatten)]
    pub global: EngineArgs,
}

/// The command.
pub const COMMAND: Command<Args> = Command {
    name: "test-stack",
    run,
    global: |args| &args.global,
    own_failure: None,
};

fn kind_parser() -> impl clap::builder::TypedValueParser<Value = TestKind> {
    PossibleValuesParser::new(TestKind::ALL.map(TestKind::name)).try_map(|name| name.parse::<TestKind>())
}

fn run(args: Args, context: &Context) -> Result<ExitStatus> {
    let wanted = TestArgs {
        tag: args.tag,
        kinds: args.kinds,
        only: args.only,
        plan: args.plan,
        directory: args.dir,
        artifacts: args.artifacts,
        gpu: args.use_gpu,
        no_verdict: args.no_verdict,
        verdict_key: args.verdict_key,
    };
    testing::test_stack(context, &wanted)
}
