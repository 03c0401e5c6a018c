//! Sends images from one engine to another: only the layers that the other lacks, without a registry.
//!
//! ```text
//! $ transfer-image dev far
//! my-app-dev:ann is on far: 1 of 12 layers sent, 1.1 MB, 0.6 s
//! ```

use clap::Parser;
use dockerutils_core::cli::{Command, Context, EngineArgs};
use dockerutils_core::error::{Error, ExitStatus, Result};
use dockerutils_core::hint;
use dockerutils_core::ops::transfer::{self, TransferArgs};

/// Send images to another engine: only the layers that it lacks
///
/// Nothing is needed at the destination but its engine. An image is named there when all of it has arrived and was
/// checked, never before. Of a transfer that is cut off, whole layers are kept there as unnamed images, so that the
/// next one goes on.
///
/// Inside a project, an image type (a folder under docker/) stands for the image that build-image made of it.
#[derive(Debug, Parser)]
#[command(
    override_usage = "transfer-image [OPTIONS] <IMAGE>... <DEST>\n       transfer-image --abort [--all] <DEST>",
    after_long_help = "SSH_KEY names a private key for a DEST that is an address.\n\nExit codes: 0 all images are there; 1 \
one could not be sent; 2 wrong usage or configuration; 3 an engine can't be reached; 130 interrupted."
)]
pub struct Args {
    /// Images: image types of the project, names or IDs; then where to: a dock, [user@]host[:port], or `localhost`
    #[arg(value_name = "IMAGE... DEST", required = true, num_args = 1..)]
    pub positional: Vec<String>,
    /// Where the images are: a dock, [user@]host[:port], or `localhost` [default: the engine in use]
    #[arg(long, value_name = "DOCK", conflicts_with = "dock")]
    pub from: Option<String>,
    /// Remove the layers that interrupted transfers of this machine have left at DEST
    #[arg(long, conflicts_with = "from")]
    pub abort: bool,
    /// With --abort: of your other machines, too, whose transfers may still run
    #[arg(long, requires = "abort")]
    pub all: bool,
    /// What every command takes that uses an engine.
    #[command(flatten)]
    pub global: EngineArgs,
}

/// The command.
pub const COMMAND: Command<Args> = Command {
    name: "transfer-image",
    run,
    global: |args| &args.global,
    own_failure: None,
};

fn run(mut args: Args, context: &Context) -> Result<ExitStatus> {
    let destination = args.positional.pop().unwrap_or_default();
    if args.abort {
        return match args.positional.first() {
            None => transfer::abort(context, &destination, args.all),
            Some(image) => Err(
                Error::usage(format!("--abort is of a whole destination, not of {image}"))
                    .hint(hint!("transfer-image --abort {}", destination)),
            ),
        };
    }
    if args.positional.is_empty() {
        return Err(
            Error::usage(format!("{destination} is to be sent, and nothing says where to"))
                .hint(hint!("transfer-image {} DEST", destination)),
        );
    }
    let wanted = TransferArgs {
        images: args.positional,
        destination,
        from: args.from,
    };
    transfer::transfer(context, &wanted)
}
