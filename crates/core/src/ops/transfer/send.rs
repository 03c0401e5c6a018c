//! Carrying out a plan: the layers are read from their source and written into the archives of loads, which end one after
//! the other; then what was loaded is checked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bollard::models::SystemInfo;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http_body_util::Empty;
use hyper::{Method, Request};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot, watch};

use super::manifests::{self, Manifests, blob_path, layer_path};
use super::plan::Plan;
use super::running::TransferIdentity;
use crate::docker::connect::engine::{Engine, refusal};
use crate::docker::images::content_store::Content;
use crate::docker::images::image_load::{self, ArchivePart, LoadError, SharedPace};
use crate::docker::images::image_save::{self, LayerPaths, Pass, PieceReader, SavedPart};
use crate::docker::images::image_store::{Inventory, Layer, Store, StoredImage, layer_type};
use crate::docker::images::manifest::{Descriptor, Digest, LAYER, Platform};
use crate::docker::images::unpacking;
use crate::error::{Class, Error, Result};
use crate::output::progress::bars::{Bar, Bars};
use dock_client::mutex::lock;

/// Layers that are read at a time, where they can be read one by one: the next are on their way while one is unpacked, and on
/// a long fat link, of which one of ssh's channels uses a part (2 MB for each round trip), they go side by side.
const READ_AT_ONCE: usize = 3;
/// Pieces of a saved image between the connection and its reader.
const PIECES: usize = 4;
/// How often an engine is asked whether it is still there, and how long it may take to say so.
const PULSE: Duration = Duration::from_secs(10);
const PULSE_LIMIT: Duration = Duration::from_secs(15);
/// So often in a row it may stay silent.
const SILENCES: usize = 2;

/// Why a transfer did not come to its end.
#[derive(Debug)]
pub enum TransferFailure {
    /// The link to an engine was cut: try again.
    Lost(Error),
    /// What is there is not what the plan was made of: plan again.
    Changed(Error),
    /// The archive of the source has other names than was thought: read it with care.
    Misread(Error),
    /// It would fail again.
    Final(Error),
}

impl TransferFailure {
    /// An error of a call to an engine.
    pub fn of(error: Error) -> Self {
        match error.class() {
            Class::Unreachable => Self::Lost(error),
            _ => Self::Final(error),
        }
    }

    /// An error of a call to an engine that may have come of a change at the destination.
    pub fn or_changed(error: Error) -> Self {
        match error.class() {
            Class::Failed => Self::Changed(error),
            _ => Self::of(error),
        }
    }
}

impl From<Error> for TransferFailure {
    fn from(error: Error) -> Self {
        Self::of(error)
    }
}

/// One end of a transfer, connected.
#[derive(Clone)]
pub struct ConnectedEndpoint {
    pub engine: Engine,
    /// What it said of itself when it was connected.
    pub info: Arc<SystemInfo>,
    /// What its machine runs.
    pub platform: Platform,
    pub store: Store,
}

/// What a transfer counts, over all its tries.
#[derive(Debug, Default)]
pub struct TransferCounters {
    /// Bytes of request bodies that went to the destination.
    pub bytes: Arc<AtomicU64>,
    /// Layers of archives that were loaded, as far as we were told.
    pub layers: AtomicUsize,
    /// Layers that were to be sent, and that were there, when it began.
    pub first_plan: OnceLock<(usize, usize)>,
    /// The images that keep layers, of archives that went whole, and of which nobody has heard since.
    unanswered: Mutex<Vec<Digest>>,
}

impl TransferCounters {
    /// The images with layers for the next try that may still come to be at the destination: an engine finishes a load of
    /// which it has all, though nobody waits for its answer any more.
    pub fn take_unanswered(&self) -> Vec<Digest> {
        std::mem::take(&mut *self.lock_unanswered())
    }

    fn lock_unanswered(&self) -> std::sync::MutexGuard<'_, Vec<Digest>> {
        lock(&self.unanswered)
    }

    fn answered(&self, image: &Digest) {
        let mut unanswered = self.lock_unanswered();
        if let Some(at) = unanswered.iter().position(|other| other == image) {
            unanswered.swap_remove(at);
        }
    }
}

/// A transfer that is on its way.
pub struct Shipment {
    /// Where from.
    pub source: ConnectedEndpoint,
    /// Where to.
    pub dest: ConnectedEndpoint,
    pub image: StoredImage,
    pub plan: Plan,
    pub identity: TransferIdentity,
    pub counters: Arc<TransferCounters>,
    /// What is seen of it.
    pub bars: Bars,
    /// Whether the names in the source's archive are not to be guessed, and all that it has is checked here.
    pub careful: bool,
    /// What is known of the link to the destination.
    pub pace: SharedPace,
    /// Layers as they are at the destination, by variant and place; those that come from an archive without sizes appear
    /// when they were read.
    pub placed: Mutex<HashMap<(usize, usize), Descriptor>>,
}

impl Shipment {
    /// Asks how the layers that the destination has are called there, and says how the others will be.
    ///
    /// # Errors
    /// A refusal or a broken connection.
    pub async fn place(&self, inventory: &Inventory) -> Result<()> {
        let Store::Containerd(content) = &self.dest.store else {
            return Ok(());
        };
        for (number, variant) in self.plan.variants.iter().enumerate() {
            for (at, layer) in variant.layers.iter().enumerate() {
                let own = layer.blob.as_ref();
                let there = match inventory.layer_blob(layer) {
                    Some((digest, _)) if own.is_some_and(|own| own.digest == digest) => own.cloned(),
                    Some((digest, size)) => {
                        let media_type = match digest == layer.diff_id {
                            true => LAYER.to_owned(),
                            false => layer_type(content, &digest).await?,
                        };
                        Some(descriptor(&media_type, digest, size))
                    }
                    None => own.cloned(),
                };
                if let Some(there) = there {
                    self.placed().insert((number, at), there);
                }
            }
        }
        Ok(())
    }

    fn placed(&self) -> std::sync::MutexGuard<'_, HashMap<(usize, usize), Descriptor>> {
        lock(&self.placed)
    }

    fn is_classic(&self) -> bool {
        matches!(self.dest.store, Store::Classic)
    }

    /// Sends all, and gives what the image is made of at the destination, where it has no name yet.
    ///
    /// # Errors
    /// [`TransferFailure`]; nothing but whole layers is left at the destination then.
    pub async fn send(self: &Arc<Self>) -> Result<Manifests, TransferFailure> {
        tokio::select! {
            sent = self.send_all() => sent,
            lost = silence(&self.dest.engine) => Err(TransferFailure::Lost(lost)),
            lost = silence(&self.source.engine) => Err(TransferFailure::Lost(lost)),
        }
    }

    async fn send_all(self: &Arc<Self>) -> Result<Manifests, TransferFailure> {
        let (turn, _) = watch::channel(0);
        let (open, mut opening) = mpsc::unbounded_channel();
        let feeding = self.feed(Opener {
            shipment: Arc::clone(self),
            turn: Arc::new(turn),
            open,
        });
        tokio::pin!(feeding);
        let mut running = FuturesUnordered::new();
        let (mut fed, mut finished) = (false, 0);
        loop {
            tokio::select! {
                Some(load) = opening.recv() => running.push(load),
                Some(ended) = running.next(), if !running.is_empty() => {
                    let documents = ended?;
                    finished += 1;
                    // The last to end is the one that completes the image.
                    if finished == self.plan.archives.len() {
                        return Ok(documents);
                    }
                }
                ended = &mut feeding, if !fed => {
                    fed = true;
                    // A load that has gone says why by itself.
                    if let Err(FeedError::Failure(failure)) = ended {
                        return Err(failure);
                    }
                }
                else => return Err(TransferFailure::Final(Error::failed("a load was lost"))),
            }
        }
    }

    /// Reads the layers, and hands them to the loads that they belong to.
    async fn feed(self: &Arc<Self>, opener: Opener) -> Result<(), FeedError> {
        match &self.source.store {
            Store::Containerd(content) => self.feed_blobs(content, opener).await,
            Store::Classic => self.feed_saved(opener).await,
        }
    }

    async fn feed_blobs(self: &Arc<Self>, content: &Content, opener: Opener) -> Result<(), FeedError> {
        let config = match self.is_classic() {
            true => self
                .plan
                .variants
                .first()
                .and_then(|variant| self.image.documents.get(&variant.config))
                .cloned(),
            false => None,
        };
        let feeding = (0..self.plan.archives.len()).map(|number| {
            let (opener, config) = (&opener, &config);
            async move {
                let feed = opener.open(number)?;
                let Some(archive) = self.plan.archives.get(number) else {
                    return Ok(());
                };
                let mut done: Vec<&Digest> = Vec::new();
                for (_, layer) in self.plan.layers(archive) {
                    let Some(blob) = &layer.blob else { continue };
                    // Twice in an image, once in an archive.
                    if done.contains(&&blob.digest) {
                        continue;
                    }
                    done.push(&blob.digest);
                    let path = match self.is_classic() {
                        true => layer_path(&layer.diff_id),
                        false => blob_path(&blob.digest),
                    };
                    if blob.media_type.ends_with("zstd") && !image_load::reads_zstd(&self.dest.engine) {
                        self.copy_plain(&feed, content, &path, layer, blob).await?;
                        continue;
                    }
                    let mut bar = self.bars.part(layer.diff_id.short(), layer.size, blob.size);
                    feed.copy(content, &path, blob, Some(&mut bar)).await?;
                    bar.done();
                }
                if self.plan.is_last(number) && !self.is_classic() {
                    for blob in self.plan.variants.iter().flat_map(|variant| &variant.attached) {
                        feed.copy(content, &blob_path(&blob.digest), blob, None).await?;
                    }
                }
                feed.close(config.clone());
                Ok(())
            }
        });
        let feeding: Vec<_> = feeding.collect();
        futures_util::stream::iter(feeding)
            .buffered(READ_AT_ONCE)
            .try_collect::<()>()
            .await
    }

    /// Copies a layer that is packed in a way that the destination can't read, as the plain tar that it was made of.
    async fn copy_plain(
        &self,
        feed: &Feed,
        content: &Content,
        path: &str,
        layer: &Layer,
        blob: &Descriptor,
    ) -> Result<(), FeedError> {
        // An archive says how long a file is before the file, and packed layers need not: what was counted is read again.
        let size = unpack(content, layer, blob, None).await?;
        let mut bar = self.bars.part(layer.diff_id.short(), layer.size, size);
        let file = ArchivePart::File {
            path: path.to_owned(),
            size,
        };
        feed.parts.send(file).await?;
        unpack(content, layer, blob, Some((&feed.parts, &mut bar))).await?;
        bar.done();
        Ok(())
    }

    async fn feed_saved(self: &Arc<Self>, opener: Opener) -> Result<(), FeedError> {
        let variant = self
            .plan
            .variants
            .first()
            .ok_or_else(|| TransferFailure::Final(Error::failed("the image has no parts")))?;
        let diff_ids: Vec<Digest> = variant.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let mut sorter = Sorter::new(self, opener);
        let mut names = LayerPaths::of(&self.image.id, &diff_ids);
        if self.careful {
            names = names.certain();
        }
        loop {
            match self.pass(&names, &diff_ids, &mut sorter).await? {
                Pass::Whole => return Ok(()),
                Pass::Again(found) => names = found,
            }
        }
    }

    /// One `docker save`, of which what is wanted is handed on.
    async fn pass(
        self: &Arc<Self>,
        names: &LayerPaths,
        diff_ids: &[Digest],
        sorter: &mut Sorter<'_>,
    ) -> Result<Pass, FeedError> {
        let engine = &self.source.engine;
        let request = Request::builder()
            .method(Method::GET)
            .uri(format!("/images/{}/get", self.image.id))
            .body(Empty::<Bytes>::new())
            .map_err(|cause| TransferFailure::Final(Error::failed("the image can't be requested").because(cause)))?;
        let response = engine
            .worked(engine.request(request))
            .await
            .map_err(TransferFailure::of)?;
        if !response.status().is_success() {
            let error = Error::failed(format!("the layers of {} can't be read", self.image.id.short()));
            return Err(TransferFailure::Final(error.because(refusal(response).await)).into());
        }
        let (pieces, coming) = mpsc::channel(PIECES);
        let (found, mut finding) = mpsc::channel(PIECES);
        let (names, diff_ids, wanted) = (names.clone(), diff_ids.to_vec(), self.plan.wanted());
        let reading = tokio::task::spawn_blocking(move || {
            image_save::read(PieceReader::new(coming), &names, &diff_ids, &wanted, &found)
        });
        let mut body = engine.chunks(response);
        let receiving = async move {
            while let Some(piece) = body.next().await {
                let piece = piece.map_err(io::Error::other);
                let broken = piece.is_err();
                // All that is wanted was read: the rest need not come.
                if pieces.send(piece).await.is_err() || broken {
                    return broken;
                }
            }
            false
        };
        let sorting = async move {
            while let Some(found) = finding.recv().await {
                sorter.sort(found).await?;
            }
            Ok::<_, FeedError>(())
        };
        let (broken, sorted) = tokio::join!(receiving, sorting);
        sorted?;
        match reading.await {
            Ok(Ok(pass)) => Ok(pass),
            Ok(Err(cause)) if broken => Err(TransferFailure::Lost(engine.lost(cause)).into()),
            Ok(Err(cause)) => Err(TransferFailure::Misread(
                Error::failed(format!("the layers of {} can't be read", self.image.id.short())).because(cause),
            )
            .into()),
            Err(cause) => Err(TransferFailure::Final(Error::failed("a thread ended early").because(cause)).into()),
        }
    }

    /// What comes at the end of an archive, when all before it was loaded.
    fn documents(&self, number: usize, config: Option<&[u8]>) -> Result<Manifests, TransferFailure> {
        let missing = || TransferFailure::Final(Error::failed("a part of the archive is missing"));
        let archive = self.plan.archives.get(number).ok_or_else(missing)?;
        let variant = self.plan.variants.get(archive.variant).ok_or_else(missing)?;
        let last = self.plan.is_last(number);
        let placed = |number: usize, end: usize| -> Result<Vec<Descriptor>, TransferFailure> {
            let placed = self.placed();
            (0..end)
                .map(|at| placed.get(&(number, at)).cloned().ok_or_else(missing))
                .collect()
        };
        let partial_image = || manifests::partial_config(&self.image.id, &self.identity, variant, archive.end);
        let diff_ids = |end: usize| -> Vec<Digest> {
            let layers = variant.layers.iter().take(end);
            layers.map(|layer| layer.diff_id.clone()).collect()
        };
        let documents = match (self.is_classic(), last) {
            (true, true) => manifests::classic(config.ok_or_else(missing)?, &diff_ids(archive.end))?,
            (true, false) => manifests::classic(&partial_image()?, &diff_ids(archive.end))?,
            (false, false) => manifests::single(&partial_image()?, &placed(archive.variant, archive.end)?)?,
            (false, true) if self.image.root.is_none() => {
                manifests::single(config.ok_or_else(missing)?, &placed(archive.variant, archive.end)?)?
            }
            (false, true) => {
                let variants = &self.plan.variants;
                let placed = variants
                    .iter()
                    .enumerate()
                    .map(|(number, variant)| placed(number, variant.layers.len()))
                    .collect::<Result<Vec<_>, _>>()?;
                manifests::whole(&self.image, variants, &placed)?
            }
        };
        Ok(documents)
    }
}

/// Waits until an engine is silent for too long, which a link that was cut without a word is, too.
async fn silence(engine: &Engine) -> Error {
    let mut silences = 0;
    loop {
        tokio::time::sleep(PULSE).await;
        let request = Request::builder().uri("/_ping").body(Empty::<Bytes>::new());
        let Ok(request) = request else { continue };
        silences = match tokio::time::timeout(PULSE_LIMIT, engine.request(request)).await {
            Ok(Ok(_)) => 0,
            _ => silences + 1,
        };
        if silences == SILENCES {
            return engine.lost("it has been silent for too long");
        }
    }
}

type Load = BoxFuture<'static, Result<Manifests, TransferFailure>>;

/// Begins loads.
struct Opener {
    shipment: Arc<Shipment>,
    turn: Arc<watch::Sender<usize>>,
    open: mpsc::UnboundedSender<Load>,
}

/// Layers can't be handed on.
enum FeedError {
    /// The load that they are for has ended.
    Gone,
    /// They can't be read.
    Failure(TransferFailure),
}

impl From<TransferFailure> for FeedError {
    fn from(failure: TransferFailure) -> Self {
        Self::Failure(failure)
    }
}

impl<T> From<mpsc::error::SendError<T>> for FeedError {
    fn from(_: mpsc::error::SendError<T>) -> Self {
        Self::Gone
    }
}

impl Opener {
    fn open(&self, number: usize) -> Result<Feed, FeedError> {
        let shipment = Arc::clone(&self.shipment);
        let (parts, loading) = image_load::begin(
            &shipment.dest.engine,
            Arc::clone(&shipment.counters.bytes),
            Arc::clone(&shipment.pace),
        );
        let (close, closed) = oneshot::channel();
        let (turn, ending) = (Arc::clone(&self.turn), parts.clone());
        let load = async move {
            let loading = std::pin::pin!(loading);
            let mut loading = loading;
            let tail = async {
                // Dropped, the feed has failed, and says why.
                let Ok(config) = closed.await else {
                    return std::future::pending().await;
                };
                let config: Option<Vec<u8>> = config;
                let mut turns = turn.subscribe();
                // A layer can be loaded only on those below it.
                if turns.wait_for(|turn| *turn >= number).await.is_err() {
                    return std::future::pending().await;
                }
                let documents = shipment.documents(number, config.as_deref())?;
                for (path, text) in &documents.files {
                    let size = text.len() as u64;
                    let file = ArchivePart::File {
                        path: path.clone(),
                        size,
                    };
                    for part in [file, ArchivePart::Data(Bytes::from(text.clone()))] {
                        if ending.send(part).await.is_err() {
                            return std::future::pending().await;
                        }
                    }
                }
                if !shipment.plan.is_last(number) {
                    shipment.counters.lock_unanswered().push(documents.id.clone());
                }
                // Whoever does not take it says why.
                let _ = ending.send(ArchivePart::End).await;
                Ok::<_, TransferFailure>(documents)
            };
            let documents = tokio::select! {
                ended = &mut loading => {
                    return Err(match ended {
                        Err(error) => shipment.load_failure(error),
                        Ok(()) => TransferFailure::Final(Error::failed("the engine took an archive before its end")),
                    });
                }
                documents = tail => documents?,
            };
            let loaded = loading.await;
            if !matches!(loaded, Err(LoadError::Lost(_))) {
                shipment.counters.answered(&documents.id);
            }
            loaded.map_err(|error| shipment.load_failure(error))?;
            let archive = shipment.plan.archives.get(number);
            let layers = archive.map_or(0, |archive| archive.layers.len());
            shipment.counters.layers.fetch_add(layers, Ordering::Relaxed);
            turn.send_replace(number + 1);
            Ok(documents)
        };
        self.open.send(Box::pin(load))?;
        Ok(Feed { parts, close })
    }
}

impl Shipment {
    fn load_failure(&self, error: LoadError) -> TransferFailure {
        let at = &self.dest.engine.choice().endpoint;
        match error {
            LoadError::Lost(error) => TransferFailure::of(error),
            LoadError::Refused(message) if is_of_full_disk(&message) => {
                TransferFailure::Final(full_disk(&format!("the engine at {at}"), Error::failed(message)))
            }
            // Layers that were there when the plan was made may have been removed.
            LoadError::Refused(message) => TransferFailure::Changed(
                Error::failed(format!("the engine at {at} refuses the image")).because(Error::failed(message)),
            ),
        }
    }
}

/// Whether an engine's message says that its disk is full.
pub fn is_of_full_disk(message: &str) -> bool {
    message.contains("no space left")
}

/// The disk of an engine is full.
pub fn full_disk(place: &str, cause: Error) -> Error {
    Error::failed(format!("the disk of {place} is full"))
        .because(cause)
        .hint("make room there: docker system prune")
}

/// Where the layers of one archive go.
struct Feed {
    parts: mpsc::Sender<ArchivePart>,
    close: oneshot::Sender<Option<Vec<u8>>>,
}

impl Feed {
    /// Copies a blob, and checks it.
    async fn copy(
        &self,
        content: &Content,
        path: &str,
        blob: &Descriptor,
        mut bar: Option<&mut Bar>,
    ) -> Result<(), FeedError> {
        let file = ArchivePart::File {
            path: path.to_owned(),
            size: blob.size,
        };
        self.parts.send(file).await?;
        let mut pieces = Box::pin(content.read(&blob.digest, None).await.map_err(TransferFailure::of)?);
        let mut hasher = Sha256::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(TransferFailure::of)?;
            hasher.update(&piece);
            if let Some(bar) = &mut bar {
                bar.advance(piece.len() as u64);
            }
            self.parts.send(ArchivePart::Data(piece)).await?;
        }
        check(hasher, &blob.digest).map_err(TransferFailure::Final)?;
        Ok(())
    }

    /// All layers were handed on.
    fn close(self, config: Option<Vec<u8>>) {
        // A load that has ended says why by itself.
        let _ = self.close.send(config);
    }
}

/// Unpacks a layer, checks it, and gives its size.
async fn unpack(
    content: &Content,
    layer: &Layer,
    blob: &Descriptor,
    mut into: Option<(&mpsc::Sender<ArchivePart>, &mut Bar)>,
) -> Result<u64, FeedError> {
    let mut blob = Box::pin(content.read(&blob.digest, None).await.map_err(TransferFailure::of)?);
    let (pieces, coming) = mpsc::channel(PIECES);
    let (plain, mut unpacked) = mpsc::channel(PIECES);
    let unpacking = tokio::task::spawn_blocking(move || unpacking::unpack(PieceReader::new(coming), &plain));
    let reading = async move {
        while let Some(piece) = blob.next().await {
            let (piece, error) = match piece {
                Ok(piece) => (Ok(piece), None),
                Err(error) => (Err(io::ErrorKind::ConnectionAborted.into()), Some(error)),
            };
            let taken = pieces.send(piece).await.is_ok();
            if let Some(error) = error {
                return Err(error);
            }
            // It says itself why it takes no more.
            if !taken {
                break;
            }
        }
        Ok(())
    };
    let taking = async move {
        let (mut hasher, mut size) = (Sha256::new(), 0);
        while let Some(piece) = unpacked.recv().await {
            hasher.update(&piece);
            size += piece.len() as u64;
            if let Some((parts, bar)) = &mut into {
                bar.advance(piece.len() as u64);
                parts.send(ArchivePart::Data(piece)).await?;
            }
        }
        Ok::<_, FeedError>((hasher, size))
    };
    let (read, taken) = tokio::join!(reading, taking);
    let (hasher, size) = taken?;
    read.map_err(TransferFailure::of)?;
    match unpacking.await {
        Ok(Ok(())) => check(hasher, &layer.diff_id).map_err(TransferFailure::Final)?,
        Ok(Err(cause)) => {
            let error = Error::failed(format!("the layer {} can't be decompressed", layer.diff_id.short()));
            return Err(TransferFailure::Final(error.because(cause)).into());
        }
        Err(cause) => return Err(TransferFailure::Final(Error::failed("a thread ended early").because(cause)).into()),
    }
    Ok(size)
}

fn check(hasher: Sha256, digest: &Digest) -> Result<()> {
    if Digest::finish(hasher) == *digest {
        return Ok(());
    }
    Err(
        Error::failed(format!("the layer {} is damaged at its source", digest.short()))
            .hint("pull or build the image there again"),
    )
}

/// Hands the layers of a saved image, in the order in which they come, to the archives that they belong to.
struct Sorter<'a> {
    shipment: &'a Arc<Shipment>,
    opener: Opener,
    waiting: Vec<Waiting>,
    current: Option<Current>,
    config: Option<Vec<u8>>,
}

/// An archive that is not closed.
#[derive(Default)]
struct Waiting {
    /// The layers that have not come yet.
    left: HashSet<Digest>,
    feed: Option<Feed>,
    closed: bool,
}

/// The layer that comes.
struct Current {
    digest: Digest,
    size: u64,
    takers: Vec<mpsc::Sender<ArchivePart>>,
    hasher: Option<Sha256>,
    bar: Bar,
}

impl<'a> Sorter<'a> {
    fn new(shipment: &'a Arc<Shipment>, opener: Opener) -> Self {
        let layers = |archive| {
            let layers = shipment.plan.layers(archive);
            layers.map(|(_, layer)| layer.diff_id.clone()).collect()
        };
        let archives = shipment.plan.archives.iter();
        let waiting = archives.map(|archive| Waiting {
            left: layers(archive),
            ..Waiting::default()
        });
        Self {
            shipment,
            opener,
            waiting: waiting.collect(),
            current: None,
            config: None,
        }
    }

    async fn sort(&mut self, found: SavedPart) -> Result<(), FeedError> {
        match found {
            SavedPart::Config(config) => {
                if Digest::of(&config) != self.shipment.image.id {
                    let error = Error::failed("the image's configuration is damaged at its source");
                    return Err(TransferFailure::Final(error).into());
                }
                self.config = Some(config);
            }
            SavedPart::Layer(digest, size) => self.begin(digest, size).await?,
            SavedPart::Data(data) => {
                if let Some(current) = &mut self.current {
                    if let Some(hasher) = &mut current.hasher {
                        hasher.update(&data);
                    }
                    current.bar.advance(data.len() as u64);
                    for taker in &current.takers {
                        taker.send(ArchivePart::Data(data.clone())).await?;
                    }
                }
            }
            SavedPart::End => self.end()?,
        }
        self.close_complete()
    }

    async fn begin(&mut self, digest: Digest, size: u64) -> Result<(), FeedError> {
        let shipment = self.shipment;
        let path = match shipment.is_classic() {
            true => layer_path(&digest),
            false => blob_path(&digest),
        };
        let mut takers = Vec::new();
        for (number, waiting) in self.waiting.iter_mut().enumerate() {
            if !waiting.left.contains(&digest) {
                continue;
            }
            let feed = match &waiting.feed {
                Some(feed) => feed,
                None => waiting.feed.insert(self.opener.open(number)?),
            };
            let path = path.clone();
            feed.parts.send(ArchivePart::File { path, size }).await?;
            takers.push(feed.parts.clone());
        }
        let layers = shipment.plan.variants.iter().flat_map(|variant| &variant.layers);
        let same = |layer: &&Layer| layer.diff_id == digest;
        let expected = layers.filter(same).map(|layer| layer.size).next().unwrap_or_default();
        // The classic store takes a layer only if it has the digest that the configuration says. What it refuses is sent
        // again with care; and the top layer's name is guessed.
        let top = shipment.plan.variants.first().and_then(|variant| variant.layers.last());
        let checked = shipment.careful || !shipment.is_classic() || top.is_some_and(|top| top.diff_id == digest);
        self.current = Some(Current {
            bar: shipment.bars.part(digest.short(), expected, size),
            digest,
            size,
            takers,
            hasher: checked.then(Sha256::new),
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), FeedError> {
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        let digest = current.digest;
        if let Some(hasher) = current.hasher {
            // Its name was guessed, and it was taken for another.
            check(hasher, &digest).map_err(TransferFailure::Misread)?;
        }
        current.bar.done();
        let variant = self.shipment.plan.variants.first();
        for (at, layer) in variant.iter().flat_map(|variant| variant.layers.iter().enumerate()) {
            if layer.diff_id == digest {
                let plain = descriptor(LAYER, digest.clone(), current.size);
                self.shipment.placed().entry((0, at)).or_insert(plain);
            }
        }
        for waiting in &mut self.waiting {
            waiting.left.remove(&digest);
        }
        Ok(())
    }

    /// Closes the archives whose layers are all there; the last one needs the image's configuration, too.
    fn close_complete(&mut self) -> Result<(), FeedError> {
        for (number, waiting) in self.waiting.iter_mut().enumerate() {
            let last = self.shipment.plan.is_last(number);
            if waiting.closed || !waiting.left.is_empty() || (last && self.config.is_none()) {
                continue;
            }
            let feed = match waiting.feed.take() {
                Some(feed) => feed,
                None => self.opener.open(number)?,
            };
            feed.close(self.config.clone().filter(|_| last));
            waiting.closed = true;
        }
        Ok(())
    }
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        platform: None,
        annotations: BTreeMap::new(),
    }
}
