//! What BuildKit's own checks say: the frontend's request `frontend.lint`, as `docker buildx build --call=check` sends it.
//!
//! Its answer comes through the gateway: Solve is sent without a frontend and waits for what a client returns to it, and
//! meanwhile the client has the frontend's result by `LLBBridge`, with the build named in a header (moby/buildkit,
//! `client/build.go` and `frontend/subrequests/lint`).

use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::SolveRequest;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{self, ReturnRequest};
use serde::Deserialize;

use super::session::{self, BuildSession, Offer};
use super::{Attached, MESSAGE_LIMIT, connect, failure, folders, frontend_attributes, ssh_agent};
use crate::docker::build::logins::Logins;
use crate::docker::build::request::BuildRequest;
use crate::docker::connect::client_config::ClientConfig;
use crate::docker::connect::engine::Engine;
use crate::docker::connect::grpc;
use crate::docker::connect::locality::Locality;
use crate::error::{Error, Result};

/// The header that names the build.
const BUILD: &str = "buildkit-controlapi-buildid";
/// BuildKit may ask a registry for the base images.
const PATIENCE: Duration = Duration::from_secs(60);
/// Warnings of one Dockerfile that are taken.
const MOST: usize = 10_000;

/// A warning of BuildKit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LintWarning {
    /// The name of the rule.
    pub rule: String,
    /// What is so here.
    pub message: String,
    /// What the rule is about.
    pub description: String,
    /// Its page.
    pub url: Option<String>,
    /// The first and the last line, from 1.
    pub lines: (usize, usize),
}

/// The document of the frontend.
#[derive(Debug, Deserialize)]
struct LintDocument {
    #[serde(default)]
    warnings: Option<Vec<DocumentedWarning>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DocumentedWarning {
    rule_name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    url: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    location: WarningLocation,
}

#[derive(Debug, Default, Deserialize)]
struct WarningLocation {
    #[serde(default)]
    ranges: Vec<LineRange>,
}

#[derive(Debug, Deserialize)]
struct LineRange {
    start: LinePosition,
    end: LinePosition,
}

#[derive(Debug, Deserialize)]
struct LinePosition {
    #[serde(default)]
    line: usize,
}

/// Has the engine's BuildKit check a Dockerfile. Nothing is built; base images may be looked up in registries.
///
/// # Errors
/// An engine whose BuildKit has no checks, that refuses the Dockerfile, or went away.
pub async fn lint(
    engine: &Engine,
    locality: Locality,
    request: &BuildRequest,
    config: &Arc<ClientConfig>,
) -> Result<Vec<LintWarning>> {
    let asking = ask(engine, locality, request, config);
    tokio::time::timeout(PATIENCE, asking)
        .await
        .map_err(|_| Error::failed(format!("no answer in {} seconds", PATIENCE.as_secs())))?
}

async fn ask(
    engine: &Engine,
    locality: Locality,
    request: &BuildRequest,
    config: &Arc<ClientConfig>,
) -> Result<Vec<LintWarning>> {
    let logins = Logins::of_build(config, &engine.choice().endpoint, locality, request);
    let given = logins.clone();
    let offer = Offer {
        folders: folders(request, locality)?,
        locality,
        // No step runs that would ask for any.
        secrets: Vec::new(),
        agents: ssh_agent::Agents::start(&[]).await?,
        logins,
    };
    let session = BuildSession::open(engine, offer).await?;
    let reference = session::random_id()?;
    let mut control = connect(engine).await?;
    let waiting = control.solve(SolveRequest {
        r#ref: reference.clone(),
        session: session.id().to_owned(),
        ..SolveRequest::default()
    });
    let attached = Attached {
        proxies: engine.proxy_variables(config),
        add_hosts: Vec::new(),
    };
    let mut attributes = frontend_attributes(request, &attached);
    attributes.insert("requestid".to_owned(), "frontend.lint".to_owned());
    let caps = attributes.entry("frontend.caps".to_owned()).or_default();
    if !caps.is_empty() {
        caps.push(',');
    }
    caps.push_str("moby.buildkit.frontend.subrequests");
    let channel = grpc::connect(engine, grpc::SMALL_MESSAGES).await?;
    let mut gateway = LlbBridgeClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT);
    let asking = async {
        let answer = gateway
            .solve(named(
                frontend::SolveRequest {
                    frontend: "dockerfile.v0".to_owned(),
                    frontend_opt: attributes,
                    allow_result_return: true,
                    allow_result_array_ref: true,
                    ..frontend::SolveRequest::default()
                },
                &reference,
            )?)
            .await;
        // Solve ends with what is returned to it.
        let returned = ReturnRequest {
            result: Some(frontend::Result::default()),
            error: None,
        };
        let _ = gateway.r#return(named(returned, &reference)?).await;
        answer.map_err(|status| failure(engine, &given, &status))
    };
    tokio::pin!(waiting);
    tokio::pin!(asking);
    let answer = tokio::select! {
        biased;
        answer = &mut asking => answer?,
        ended = &mut waiting => match ended {
            Ok(_) => asking.await?,
            Err(status) => return Err(failure(engine, &given, &status)),
        },
    };
    let document = answer
        .into_inner()
        .result
        .and_then(|mut result| result.metadata.remove("result.json"));
    let document = document.ok_or_else(|| Error::failed("this engine's BuildKit has no checks"))?;
    let document: LintDocument = serde_json::from_slice(&document)
        .map_err(|cause| Error::failed("BuildKit's answer is not as it should be").because(cause))?;
    Ok(document
        .warnings
        .unwrap_or_default()
        .into_iter()
        .take(MOST)
        .map(warning)
        .collect())
}

fn warning(said: DocumentedWarning) -> LintWarning {
    let ranges = &said.location.ranges;
    let first = ranges
        .iter()
        .map(|range| range.start.line)
        .min()
        .unwrap_or_default()
        .max(1);
    let last = ranges
        .iter()
        .map(|range| range.end.line)
        .max()
        .unwrap_or_default()
        .max(first);
    LintWarning {
        message: if said.detail.is_empty() {
            said.description.clone()
        } else {
            said.detail
        },
        rule: said.rule_name,
        description: said.description,
        url: Some(said.url).filter(|url| !url.is_empty()),
        lines: (first, last),
    }
}

/// A request of this build.
fn named<T>(message: T, reference: &str) -> Result<tonic::Request<T>> {
    let mut request = tonic::Request::new(message);
    let value = reference
        .parse()
        .map_err(|_| Error::failed("the name of a build is not a header's value"))?;
    request.metadata_mut().insert(BUILD, value);
    Ok(request)
}
