//! Publishes an image of a project to Docker Hub, to Amazon ECR or to another registry.
//!
//! ```text
//! $ publish-image web
//! docker tag my-app-web:ann registry.example.com/my-app-web:ann
//! docker push registry.example.com/my-app-web:ann
//! docker pull registry.example.com/my-app-web:ann
//! ```

use clap::Parser;
use dockerutils_core::cli::{Command, Context, EngineArgs};
use dockerutils_core::error::{ExitStatus, Result};
use dockerutils_core::ops::publish::{self, PublishArgs};

/// Publish an image to Docker Hub, to Amazon ECR or to another registry
///
/// Where it goes is said in its section of docker/dockerutils.cfg: image_repo is aws, docker_hub or the host of a
/// registry; publication_tag is the reference, with {image}, {tag}, {user}, for aws also {account} and {region}, and
/// $NAME. The login is docker's own (`docker login`, credential helpers), for aws that of the AWS SDK (profiles, SSO,
/// environment, instance roles); at a terminal, one to Docker Hub is asked for where there is none. With aws, the
/// repository is created where it is absent. An image that the registry has already is not pushed again. The last line is
/// the `docker pull` for others.
#[derive(Debug, Parser)]
#[command(
    after_long_help = "Exit codes: 0 published; 1 refused or failed; 2 wrong usage or configuration; 3 the engine or the \
registry can't be reached; 130 interrupted."
)]
pub struct Args {
    /// The image to publish
    pub image: String,
    /// Publish the image of this name
    #[arg(short, long = "image_name", visible_alias = "image-name", value_name = "NAME")]
    pub image_name: Option<String>,
    /// Publish it by this tag in place of the configured one; several add up
    #[arg(long, value_name = "TAG")]
    pub publish_tag: Vec<String>,
    /// What every command takes.
    #[command(flatten)]
    pub global: EngineArgs,
}

/// The command.
pub const COMMAND: Command<Args> = Command {
    name: "publish-image",
    run,
    global: |args| &args.global,
    own_failure: None,
};

fn run(args: Args, context: &Context) -> Result<ExitStatus> {
    let wanted = PublishArgs {
        image: args.image,
        image_name: args.image_name,
        tags: args.publish_tag,
    };
    publish::publish(context, &wanted)
}
