//! Moving images between engines: only the layers that the other one lacks, and nothing but whole, checked images there.

mod abort;
mod endpoint;
mod manifests;
mod plan;
mod retries;
mod running;
mod send;
mod verify;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::project::Project;
use crate::context::Context;
use crate::docker::connect::engine::Engine;
use crate::docker::images::image;
use crate::docker::images::image_load;
use crate::docker::images::image_store::{self, Store, StoredImage};
use crate::docker::images::manifest::{Digest, Platform};
use crate::docks::Docks;
use crate::error::{Class, Error, ErrorDocument, ErrorOf, ExitStatus, Result, WithFailures};
use crate::heartbeat::Heartbeat;
use crate::hint;
use crate::naming::Designation;
use crate::output::progress::bars::Bars;
use crate::output::{counted, size, visible};
use crate::patience::{CutNews, Exhausted};
use abort::{is_over, is_own};
use dock_client::mutex::lock;
use endpoint::TransferEndpoint;
use manifests::partial_label;
use plan::{DiskSpace, Plan};
use retries::{NextTry, Retries};
use running::{RunningTransfer, TransferIdentity};
use send::{ConnectedEndpoint, Shipment, TransferCounters, TransferFailure, full_disk, is_of_full_disk};
use verify::{PartialImage, partial_images, present, remove, remove_unnamed, verify};

/// How long to wait for what loads that were cut off may still bring, and how often to look.
const LATE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);
/// How long to look for what is kept, when the user wants to go.
const LAST_LOOK: Duration = Duration::from_secs(5);

/// What transfer-image is asked for.
#[derive(Clone, Debug, Default)]
pub struct TransferArgs {
    /// Image types of the project, names or IDs.
    pub images: Vec<String>,
    /// Where to.
    pub destination: String,
    /// Where from; the engine that the call is for where none is named.
    pub from: Option<String>,
}

/// How it went with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferStatus {
    /// It was sent.
    Transferred,
    /// It was there already.
    Present,
    /// It could not be sent.
    Failed,
}

/// What came out for one image.
#[derive(Clone, Debug, Serialize)]
pub struct TransferReport {
    /// As it was asked for, or the name that this means.
    pub image: String,
    /// How it went.
    pub status: TransferStatus,
    /// The digest of its configuration, the same at both ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_digest: Option<String>,
    /// Its ID at the destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Layers that went over the link.
    pub layers_sent: usize,
    /// Layers that the destination had.
    pub layers_skipped: usize,
    /// Bytes that were sent to the destination's engine.
    pub bytes_sent: u64,
    /// How long it took.
    pub seconds: f64,
    #[serde(flatten)]
    pub why: Option<ErrorDocument>,
}

/// What would be done for one image.
#[derive(Clone, Debug, Serialize)]
struct PlanReport {
    image: String,
    destination: String,
    config_digest: String,
    layers_to_send: usize,
    layers_skipped: usize,
    bytes_to_send: u64,
}

/// All that `--json` prints.
#[derive(Serialize)]
struct TransferDocument<T> {
    images: Vec<T>,
}

/// An image that is asked for.
struct RequestedImage {
    /// What the engine is asked for.
    reference: String,
    /// The image type, where it is one.
    built_as: Option<String>,
}

/// Both ends of a call.
struct Route<'a> {
    context: &'a Context,
    from: TransferEndpoint,
    to: TransferEndpoint,
    /// The ID of the image that is on its way.
    sending: Mutex<Option<Digest>>,
}

/// Sends images to another engine.
///
/// # Errors
/// Wrong usage, ends that can't be reached or are the same engine. An image that can't be sent is reported, and in the
/// status.
pub fn transfer(context: &Context, args: &TransferArgs) -> Result<ExitStatus> {
    let docks = Docks::read(&context.env)?;
    let words = args.from.iter().chain([&args.destination]);
    words
        .filter_map(|word| docks.doubt(word))
        .for_each(|doubt| context.printer.warning(&doubt));
    let route = Route {
        context,
        from: match &args.from {
            Some(word) => TransferEndpoint::of(word, &|| key(context), &context.env)?,
            None => TransferEndpoint::of_call(context)?,
        },
        to: TransferEndpoint::of(&args.destination, &|| key(context), &context.env)?,
        sending: Mutex::new(None),
    };
    let wanted = wanted(context, &args.images)?;
    let running = match context.global.dry_run {
        true => None,
        false => Some(begin(context)?),
    };
    let ended = context.block_on(async {
        let (source, dest) = route.connect_patiently().await?;
        let _heartbeats = route.heartbeats()?;
        route.check_distinct(&source, &dest)?;
        match &running {
            None => route.show_plans(&wanted, &source, &dest).await,
            Some(running) => route.send_each(&wanted, source, dest, &running.identity).await,
        }
    });
    match (ended, &running) {
        (Err(error), Some(running)) if error.class() == Class::Interrupted => {
            route.say_what_is_kept(&running.identity);
            Err(error)
        }
        (ended, _) => ended,
    }
}

/// From now on, others on this machine see that a transfer runs.
fn begin(context: &Context) -> Result<RunningTransfer> {
    let (running, failure) = RunningTransfer::begin(&context.env)?;
    if let Some(error) = failure {
        context.printer.warning(&format!(
            "if this transfer is interrupted, what it keeps looks like another machine's: {}",
            error.with_causes()
        ));
    }
    Ok(running)
}

/// Removes the layers that interrupted transfers left at a place, for going on: those of this machine, or of `all`.
///
/// # Errors
/// A place that can't be reached, or its engine's refusal.
pub fn abort(context: &Context, destination: &str, all: bool) -> Result<ExitStatus> {
    let place = TransferEndpoint::of(destination, &|| key(context), &context.env)?;
    context.block_on(async {
        let engine = place.connect_patiently(context).await?;
        let _heartbeat = place.heartbeat(context)?;
        abort::abort(context, &place, &engine, all).await
    })
}

impl Route<'_> {
    /// Connects to both for the first time: a link that stood, and fell silent, is waited for.
    async fn connect_patiently(&self) -> Result<(ConnectedEndpoint, ConnectedEndpoint)> {
        self.connect_by(async |place| place.connect_patiently(self.context).await)
            .await
    }

    async fn connect(&self) -> Result<(ConnectedEndpoint, ConnectedEndpoint)> {
        self.connect_by(async |place| place.connect(&self.context.env).await)
            .await
    }

    /// Says of either end when it gives no sign of life.
    fn heartbeats(&self) -> Result<[Option<Heartbeat>; 2]> {
        Ok([self.from.heartbeat(self.context)?, self.to.heartbeat(self.context)?])
    }

    async fn connect_by(
        &self,
        connect: impl AsyncFn(&TransferEndpoint) -> Result<Engine>,
    ) -> Result<(ConnectedEndpoint, ConnectedEndpoint)> {
        let end = async |place: &TransferEndpoint| {
            let engine = connect(place).await?;
            let (info, platform) = tokio::try_join!(engine.info(), platform(&engine))?;
            let store = Store::of(&engine, &info).await?;
            Ok::<_, Error>(ConnectedEndpoint {
                engine,
                info: Arc::new(info),
                platform,
                store,
            })
        };
        // One after the other: each may ask for a passphrase.
        Ok((end(&self.from).await?, end(&self.to).await?))
    }

    /// An image need not be sent to the engine that has it.
    fn check_distinct(&self, source: &ConnectedEndpoint, dest: &ConnectedEndpoint) -> Result<()> {
        let (here, there) = (&source.info, &dest.info);
        // Machines that were cloned have the same ID, and another name.
        let same = here.id.is_some() && here.id == there.id && here.name == there.name;
        if !same {
            return Ok(());
        }
        let to = visible(&self.to.name);
        let error = Error::usage(format!("{to} is the engine that the image is on"));
        Err(match crate::docks::current(&self.context.env) {
            Some(_) => error.hint("this shell is docked there: castoff, or name where the image is: --from localhost"),
            None => error.hint("name where the image is with --from (ls-dock lists the docks), or another destination"),
        })
    }

    async fn show_plans(
        &self,
        wanted: &[RequestedImage],
        source: &ConnectedEndpoint,
        dest: &ConnectedEndpoint,
    ) -> Result<ExitStatus> {
        let printer = &self.context.printer;
        let mut worst = ExitStatus::SUCCESS;
        let (mut reports, mut failed) = (Vec::new(), Vec::new());
        let (inventory, free) = tokio::join!(dest.store.inventory(&dest.engine), self.free(dest));
        let inventory = inventory?;
        for wanted in wanted {
            let image = match self.image(wanted, source).await {
                Ok(image) => image,
                Err(error) => {
                    printer.error(&error);
                    failed.push(ErrorOf::image(&wanted.reference, &error));
                    worst = worst.max(error.class().status());
                    continue;
                }
            };
            let plan = Plan::new(&image, &inventory, &dest.platform);
            self.warn(wanted, &image, &plan, dest);
            let report = PlanReport {
                image: wanted.reference.clone(),
                destination: self.to.name.clone(),
                config_digest: config_of(&image, &plan).to_string(),
                layers_to_send: plan.sent,
                layers_skipped: plan.skipped,
                bytes_to_send: plan.bytes,
            };
            if !printer.json() {
                printer.result(&self.plan_line(wanted, &plan));
            }
            reports.push(report);
            if let Err(error) = self.check_space(&plan, free) {
                printer.error(&error);
                failed.push(ErrorOf::image(&wanted.reference, &error));
                worst = worst.max(error.class().status());
            }
        }
        if printer.json() {
            let done = TransferDocument { images: reports };
            printer.result_json(&WithFailures { done, failed })?;
        }
        Ok(worst)
    }

    fn plan_line(&self, wanted: &RequestedImage, plan: &Plan) -> String {
        let to_send = match plan.sent {
            0 => "no layer to send".to_owned(),
            number => format!("{} to send ({})", counted(number, "layer"), amount(plan)),
        };
        format!(
            "{} to {}: {to_send}, {} there",
            visible(&wanted.reference),
            visible(&self.to.name),
            plan.skipped
        )
    }

    async fn image(&self, wanted: &RequestedImage, source: &ConnectedEndpoint) -> Result<StoredImage> {
        let image = source.store.image(&source.engine, &wanted.reference).await;
        image.map_err(|error| match &wanted.built_as {
            Some(name) if error.class() == Class::Failed => error.hint(hint!("build it first: build-image {}", name)),
            _ => error,
        })
    }

    /// Says what of the image does not arrive as one may think.
    fn warn(&self, wanted: &RequestedImage, image: &StoredImage, plan: &Plan, dest: &ConnectedEndpoint) {
        let target = &dest.platform;
        let chosen = plan::chosen(image, target);
        let differs = chosen.is_some_and(|chosen| {
            !chosen.platform.architecture.is_empty()
                && (chosen.platform.os != target.os || chosen.platform.architecture != target.architecture)
        });
        if let (true, Some(chosen)) = (differs, chosen) {
            self.context.printer.warning(&format!(
                "{} is made for {}, and {} runs {target}: it will run by emulation, slowly, or not at all",
                wanted.reference, chosen.platform, self.to.name
            ));
        }
        let platforms = image
            .variants
            .iter()
            .filter(|variant| !variant.platform.os.is_empty())
            .count();
        if platforms > plan.variants.len()
            && let Some(chosen) = chosen
        {
            self.context.printer.warning(&format!(
                "{} is for {platforms} platforms, and the store on {} keeps one: {} is sent",
                wanted.reference, self.to.name, chosen.platform
            ));
        }
    }

    async fn send_each(
        &self,
        wanted: &[RequestedImage],
        mut source: ConnectedEndpoint,
        mut dest: ConnectedEndpoint,
        identity: &TransferIdentity,
    ) -> Result<ExitStatus> {
        let printer = &self.context.printer;
        let mut worst = ExitStatus::SUCCESS;
        let mut reports = Vec::new();
        let mut gone = false;
        for wanted in wanted {
            let began = Instant::now();
            let counters = Arc::new(TransferCounters::default());
            // Where an engine stayed away for so long, it is asked once more for each of the others.
            let sent = match if gone { self.connect().await.map(Some) } else { Ok(None) } {
                Ok(again) => {
                    if let Some(ends) = again {
                        (source, dest) = ends;
                    }
                    self.send(wanted, &mut source, &mut dest, &counters, identity).await
                }
                Err(error) => Err(error),
            };
            gone = sent.as_ref().is_err_and(|error| error.class() == Class::Unreachable);
            let mut report = TransferReport {
                image: wanted.reference.clone(),
                status: TransferStatus::Failed,
                config_digest: None,
                id: None,
                layers_sent: counters.layers.load(Ordering::Relaxed),
                layers_skipped: 0,
                bytes_sent: counters.bytes.load(Ordering::Relaxed),
                seconds: began.elapsed().as_secs_f64(),
                why: None,
            };
            match sent {
                Ok(arrived) => {
                    *self.sending() = None;
                    report.status = arrived.status;
                    report.config_digest = Some(arrived.config.to_string());
                    report.id = Some(arrived.id.to_string());
                    // Whatever was there between two tries was sent by the first of them.
                    (report.layers_sent, report.layers_skipped) =
                        counters.first_plan.get().copied().unwrap_or_default();
                    if !printer.json() {
                        printer.result(&self.result_line(&report));
                    }
                }
                Err(error) => {
                    printer.error(&error);
                    report.why = Some(error.document());
                    worst = worst.max(error.class().status());
                }
            }
            reports.push(report);
        }
        if printer.json() {
            printer.result_json(&TransferDocument { images: reports })?;
        }
        Ok(worst)
    }

    fn result_line(&self, report: &TransferReport) -> String {
        let (image, to) = (visible(&report.image), visible(&self.to.name));
        match report.status {
            TransferStatus::Present => format!(
                "{image} is on {to} already: {}",
                counted(report.layers_skipped, "layer")
            ),
            _ => format!(
                "{image} is on {to}: {} of {} sent, {}, {:.1} s",
                report.layers_sent,
                counted(report.layers_sent + report.layers_skipped, "layer"),
                size(report.bytes_sent),
                report.seconds
            ),
        }
    }

    /// Sends one image, over as many tries as it takes.
    async fn send(
        &self,
        wanted: &RequestedImage,
        source: &mut ConnectedEndpoint,
        dest: &mut ConnectedEndpoint,
        counters: &Arc<TransferCounters>,
        identity: &TransferIdentity,
    ) -> Result<Arrived> {
        let mut retries = Retries::default();
        loop {
            let before = counters.layers.load(Ordering::Relaxed);
            let careful = retries.is_careful();
            let failure = match self.attempt(wanted, source, dest, counters, careful, identity).await {
                Ok(arrived) => return Ok(arrived),
                Err(failure) => failure,
            };
            let has_progress = counters.layers.load(Ordering::Relaxed) > before;
            match retries.after(failure, has_progress) {
                NextTry::Now => {}
                NextTry::Never(error) => return Err(self.with_partial_images(error, dest, identity).await),
                NextTry::WhenBack(lost) => {
                    (*source, *dest) = self.reconnect(lost, &mut retries, counters).await?;
                    self.wait_for_late(dest, counters).await;
                }
            }
        }
    }

    /// Waits for a link that was lost, and says so.
    async fn reconnect(
        &self,
        lost: Error,
        retries: &mut Retries,
        counters: &TransferCounters,
    ) -> Result<(ConnectedEndpoint, ConnectedEndpoint)> {
        let printer = &self.context.printer;
        printer.warning(&format!(
            "the link was cut ({}); trying again: {}",
            lost.with_causes(),
            kept_of(counters.layers.load(Ordering::Relaxed), &self.to.name)
        ));
        let mut is_said = false;
        let waiting = |seconds| {
            if std::mem::replace(&mut is_said, true) {
                printer.note(&CutNews::Waiting(seconds).to_string());
            }
        };
        let exhausted = match retries.reconnect(lost, async || self.connect().await, waiting).await {
            Ok(ends) => return Ok(ends),
            Err(exhausted) => exhausted,
        };
        // An engine that has all of a load finishes it, though nobody hears of it.
        if counters.layers.load(Ordering::Relaxed) > 0 || !counters.take_unanswered().is_empty() {
            self.kept_warning();
        }
        let Exhausted { lost, refused } = *exhausted;
        // It answers, and refuses: it says more of what happened than the cut did. An engine whose disk is full may
        // close a connection before its reason is read.
        Err(match refused {
            None => lost,
            Some(again) if is_of_full_disk(&again.with_causes()) => full_disk(&self.to.name, again),
            Some(again) => again,
        })
    }

    async fn attempt(
        &self,
        wanted: &RequestedImage,
        source: &ConnectedEndpoint,
        dest: &ConnectedEndpoint,
        counters: &Arc<TransferCounters>,
        careful: bool,
        identity: &TransferIdentity,
    ) -> Result<Arrived, TransferFailure> {
        // The disk is asked for meanwhile: on a far link, each question takes its time.
        let mut free = std::pin::pin!(self.free(dest));
        let mut looked = None;
        let (inventory, image) = {
            let mut asking = std::pin::pin!(async {
                tokio::try_join!(dest.store.inventory(&dest.engine), self.image(wanted, source))
            });
            loop {
                tokio::select! {
                    asked = &mut asking => break asked?,
                    free = &mut free, if looked.is_none() => looked = Some(free),
                }
            }
        };
        let plan = Plan::new(&image, &inventory, &dest.platform);
        if counters.first_plan.get().is_none() {
            self.warn(wanted, &image, &plan, dest);
        }
        *self.sending() = Some(image.id.clone());
        let config = config_of(&image, &plan);
        let (first_sent, _) = *counters.first_plan.get_or_init(|| (plan.sent, plan.skipped));
        if let Some(id) = present(&image, &plan, dest, &inventory).await? {
            // Who gives containerd's store a name anew takes it away for a moment.
            if !has_name(&image, &id, dest).await? {
                self.name(&image, &id, dest).await?;
            }
            self.forget_partial_images(&image.id, dest, identity).await?;
            return Ok(Arrived {
                status: if first_sent > 0 {
                    TransferStatus::Transferred
                } else {
                    TransferStatus::Present
                },
                id,
                config,
            });
        }
        let free = match looked {
            Some(free) => free,
            None => free.await,
        };
        self.check_space(&plan, free)?;
        self.context.printer.note(&self.plan_line(wanted, &plan));
        let bars = Bars::new(&self.context.printer, &wanted.reference, plan.bytes);
        let shipment = Arc::new(Shipment {
            source: source.clone(),
            dest: dest.clone(),
            image,
            plan,
            identity: identity.clone(),
            counters: Arc::clone(counters),
            bars,
            careful,
            pace: image_load::pace(&dest.engine),
            placed: Mutex::new(HashMap::new()),
        });
        shipment.place(&inventory).await?;
        let sent = shipment.send().await;
        shipment.bars.finish();
        let documents = sent?;
        if let Err(error) = verify(&shipment, &documents).await {
            let failure = TransferFailure::or_changed(error);
            // It has no name, and whoever gave it one meanwhile keeps it.
            if matches!(failure, TransferFailure::Changed(_)) && !inventory.has_blob(&documents.id) {
                let _ = remove_unnamed(&dest.engine, &documents.id).await;
            }
            return Err(failure);
        }
        self.name(&shipment.image, &documents.id, dest).await?;
        self.forget_partial_images(&shipment.image.id, dest, identity).await?;
        Ok(Arrived {
            status: TransferStatus::Transferred,
            id: documents.id,
            config,
        })
    }

    /// Gives the image its name at the destination, and looks whether it has it.
    async fn name(&self, image: &StoredImage, id: &Digest, dest: &ConnectedEndpoint) -> Result<(), TransferFailure> {
        let Some(name) = &image.name else { return Ok(()) };
        image_store::tag(&dest.engine, id, name)
            .await
            // It had no name for a moment, and may have been taken for unused.
            .map_err(TransferFailure::or_changed)?;
        match has_name(image, id, dest).await? {
            true => Ok(()),
            false => Err(TransferFailure::Changed(Error::failed(format!(
                "{name} is another image on {} now",
                self.to.name
            )))),
        }
    }

    /// Waits, for a moment, for the layers that went whole before the link was cut: an engine that got them is still at it,
    /// and they need not be sent again.
    async fn wait_for_late(&self, dest: &ConnectedEndpoint, counters: &TransferCounters) {
        let Some(image) = self.sending().clone() else { return };
        let label = partial_label(&image);
        let began = Instant::now();
        let mut late = counters.take_unanswered();
        while !late.is_empty() && began.elapsed() < LATE {
            // Whether the engine answers, the next try finds out.
            let there = partial_images(&dest.engine, &label).await.unwrap_or_default();
            late.retain(|late| !there.iter().any(|partial_image| partial_image.id == *late));
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Removes what kept the layers of an image that is whole now, and leaves what another transfer of it still needs.
    async fn forget_partial_images(
        &self,
        image: &Digest,
        dest: &ConnectedEndpoint,
        identity: &TransferIdentity,
    ) -> Result<(), TransferFailure> {
        let label = partial_label(image);
        let removed = async {
            let found = partial_images(&dest.engine, &label).await?;
            let over = |partial_image: &&PartialImage| is_over(partial_image, identity, &self.context.env);
            remove(
                &dest.engine,
                found.iter().filter(over).map(|partial_image| &partial_image.id),
            )
            .await
        };
        match removed.await.map_err(TransferFailure::of) {
            Err(TransferFailure::Final(error)) => {
                // The image is there, and whole.
                self.context.printer.warning(&format!(
                    "the image that kept the layers on {} is still there ({error}): transfer-image --abort {}",
                    self.to.name,
                    crate::shell::quote(&self.to.name)
                ));
                Ok(())
            }
            removed => removed,
        }
    }

    /// Says that layers are kept at the destination, where there are.
    async fn with_partial_images(&self, error: Error, dest: &ConnectedEndpoint, identity: &TransferIdentity) -> Error {
        let Some(image) = self.sending().clone() else {
            return error;
        };
        if self.keeps(&image, &dest.engine, identity).await.unwrap_or_default() {
            self.kept_warning();
        }
        error
    }

    /// Whether layers of an image are kept there that the next transfer of this machine goes on with.
    async fn keeps(&self, image: &Digest, engine: &Engine, identity: &TransferIdentity) -> Result<bool> {
        let kept = partial_images(engine, &partial_label(image)).await?;
        Ok(kept
            .iter()
            .any(|partial_image| is_own(partial_image, identity, &self.context.env)))
    }

    /// The same after Ctrl-C, when nothing of the transfer is left: looks there once more, for a moment.
    fn say_what_is_kept(&self, identity: &TransferIdentity) {
        let Some(image) = self.sending().clone() else { return };
        let looking = async {
            let engine = self.to.connect(&self.context.env).await?;
            self.keeps(&image, &engine, identity).await
        };
        let looked = self.context.block_on(async {
            let looked = tokio::time::timeout(LAST_LOOK, looking).await;
            Ok(looked.is_ok_and(|kept| kept.unwrap_or_default()))
        });
        if looked.unwrap_or_default() {
            self.kept_warning();
        }
    }

    /// A warning, and no note: it is said whatever the verbosity.
    fn kept_warning(&self) {
        self.context.printer.warning(&format!(
            "layers that arrived whole are kept on {}: the next transfer-image goes on, transfer-image --abort {} removes them",
            self.to.name,
            crate::shell::quote(&self.to.name)
        ));
    }

    fn sending(&self) -> std::sync::MutexGuard<'_, Option<Digest>> {
        lock(&self.sending)
    }

    /// Bytes that are free at the destination; `None` where nobody can look.
    async fn free(&self, dest: &ConnectedEndpoint) -> Option<u64> {
        self.to.free(&dest.engine, &dest.info, &self.context.env).await
    }

    fn check_space(&self, plan: &Plan, free: Option<u64>) -> Result<()> {
        if plan.sent == 0 {
            return Ok(());
        }
        let Some(free) = free else {
            self.context.printer.detail("how much space is free there is not known");
            return Ok(());
        };
        let DiskSpace { least, most } = plan.room;
        if free < least {
            return Err(Error::failed(format!(
                "{} has {} free, and needs {} for what is sent, compressed and extracted",
                self.to.name,
                size(free),
                size(least)
            ))
            .hint("make room there: docker system prune"));
        }
        if free < most {
            self.context.printer.warning(&format!(
                "{} has only {} free, and may need up to {} for what is sent, compressed and extracted",
                self.to.name,
                size(free),
                size(most)
            ));
        }
        Ok(())
    }
}

/// Whether the image's name, where it has one, leads to this ID at the destination.
async fn has_name(image: &StoredImage, id: &Digest, dest: &ConnectedEndpoint) -> Result<bool> {
    let Some(name) = &image.name else { return Ok(true) };
    let found = image::find(&dest.engine, name).await?;
    Ok(found.is_some_and(|facts| facts.id == id.as_str()))
}

/// An image at the destination.
struct Arrived {
    status: TransferStatus,
    id: Digest,
    config: Digest,
}

fn amount(plan: &Plan) -> String {
    let about = if plan.about { "about " } else { "" };
    format!("{about}{}", size(plan.bytes))
}

/// The private key that the original took from the environment.
fn key(context: &Context) -> Result<Option<PathBuf>> {
    let Some(key) = context.env.non_empty("SSH_KEY") else {
        return Ok(None);
    };
    let path = match key.strip_prefix("~/") {
        Some(rest) => context.env.home().join(rest),
        None => context.working_dir.join(key),
    };
    if path.is_file() {
        return Ok(Some(path));
    }
    Err(Error::usage(format!("there is no key {} (SSH_KEY)", path.display()))
        .hint("SSH_KEY names the private key's file; unset SSH_KEY for the keys of ~/.ssh"))
}

/// Image types of the project, where we are in one, stand for what build-image made of them.
fn wanted(context: &Context, images: &[String]) -> Result<Vec<RequestedImage>> {
    let project = match Project::find(&context.working_dir, &context.env) {
        Ok(project) => Some(project),
        // In a project whose configuration is damaged or does not count, nobody knows what an image type stands for.
        Err(error)
            if Project::is_around(&context.working_dir, &context.env)
                && images.iter().any(|image| !image.contains([':', '/'])) =>
        {
            return Err(error);
        }
        Err(_) => None,
    };
    let mut all: Vec<RequestedImage> = Vec::new();
    for image in images {
        let built = project.as_ref().filter(|project| project.runnable(image).is_ok());
        let wanted = match built {
            Some(project) => {
                let named = project.designation(image)?;
                named.notes.iter().for_each(|note| context.printer.warning(note));
                let Designation { name, tag } = named.designation;
                RequestedImage {
                    reference: format!("{name}:{tag}"),
                    built_as: Some(image.clone()),
                }
            }
            None => RequestedImage {
                reference: image.clone(),
                built_as: None,
            },
        };
        if wanted.reference.is_empty() || wanted.reference.chars().any(|c| c.is_control() || c.is_whitespace()) {
            let error = Error::usage(format!("{:?} is not an image", wanted.reference));
            return Err(error.hint("docker images lists them"));
        }
        if all.iter().all(|other| other.reference != wanted.reference) {
            all.push(wanted);
        }
    }
    Ok(all)
}

async fn platform(engine: &Engine) -> Result<Platform> {
    let version = engine.version().await?;
    Ok(Platform {
        os: version.os.unwrap_or_default(),
        architecture: version.arch.unwrap_or_default(),
        variant: None,
    })
}

/// The digest of the configuration that goes, or the first that does.
fn config_of(image: &StoredImage, plan: &Plan) -> Digest {
    let first = plan.variants.iter().find(|variant| !variant.layers.is_empty());
    first.map_or_else(|| image.id.clone(), |variant| variant.config.clone())
}

/// What the next try need not send, where so many layers are known to have arrived.
fn kept_of(layers: usize, place: &str) -> String {
    match layers {
        0 => "no layer is known to have arrived whole".to_owned(),
        layers => format!("{} kept on {place}", counted(layers, "layer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_cut_transfer_is_what_arrived() {
        assert_eq!(kept_of(0, "far"), "no layer is known to have arrived whole");
        assert_eq!(kept_of(1, "far"), "1 layer kept on far");
        assert_eq!(kept_of(3, "far"), "3 layers kept on far");
    }
}
