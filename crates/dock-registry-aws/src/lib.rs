//! What publish-image needs of AWS: who we are, a login to its registry (ECR), a repository there.
//!
//! A program of its own, because AWS's SDK is large; users don't call it: publish-image starts it if `image_repo` is
//! aws, and speaks with it as [`dock_client::registry_helper`] says. Credentials and the region are found by the SDK as
//! the AWS command line finds them: environment, profiles, SSO, programs, containers, instance roles.
//!
//! ```text
//! $ echo '"identity"' | dock-registry-aws
//! {"identity":{"account":"123456789012","region":"eu-west-1"}}
//! ```

mod client;
mod failure;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use dock_client::error::WireError;
use dock_client::registry_helper::{Answer, Request};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use client::Client;

/// Answers the requests of stdin, a line each, until it ends.
pub fn main() -> ExitCode {
    if std::env::args_os().len() > 1 || std::io::stdin().is_terminal() {
        // A closed stderr changes nothing.
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"dock-registry-aws: publish-image starts this program; it takes requests on stdin, and no arguments\n",
        );
        return ExitCode::from(2);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map(|runtime| runtime.block_on(serve())) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(_)) | Err(_) => ExitCode::FAILURE,
    }
}

async fn serve() -> std::io::Result<()> {
    let mut requests = BufReader::new(tokio::io::stdin()).lines();
    let mut answers = tokio::io::stdout();
    // Made when it is needed: SSO and instance roles take time.
    let mut client = None;
    while let Some(line) = requests.next_line().await? {
        let answer = match serde_json::from_str::<Request>(&line) {
            Ok(request) => {
                let client: &Client = match &mut client {
                    Some(client) => client,
                    none => none.insert(Client::new().await),
                };
                client.answer(&request).await
            }
            Err(_) => Err(failure::unknown_request()),
        };
        let answer = answer.unwrap_or_else(|error| Answer::Failure(WireError::from(&error)));
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        answers.write_all(&line).await?;
        answers.flush().await?;
    }
    Ok(())
}
