//! The sources of mounts in requests to the engine, and other paths in the place of these.
//!
//! Where a request may name a path of the engine's machine:
//!
//! | form | in the request | if the path is missing |
//! |---|---|---|
//! | [`MountForm::Bind`] | `HostConfig.Binds`: `SOURCE:TARGET[:OPTIONS]` | the engine makes a directory |
//! | [`MountForm::Mount`] | an entry of `Mounts` of type `bind` | refused, unless `BindOptions.CreateMountpoint` |
//! | [`MountForm::VolumeDevice`] | options of the volume driver `local`: `o` has `bind`, `device` is a path | refused |
//!
//! `Mounts` are those of `HostConfig`, or of a service's `TaskTemplate.ContainerSpec`. The options of a volume are in a
//! mount of type `volume` (`VolumeOptions.DriverConfig`), whose volume the engine creates on the way, or in the request
//! that creates a volume (`DriverOpts`).
//!
//! A request may also name what is on the engine's machine already ([`References`]), and mounts paths by that: volumes, in
//! `Binds` and `Mounts`, and containers, in `HostConfig.VolumesFrom`: `CONTAINER[:OPTIONS]`.
//!
//! The forms are those of the engine's API (<https://docs.docker.com/reference/api/engine/>) and of the engine's own
//! parsers (`volume/mounts/linux_parser.go`, `volume/local/local_unix.go`, `daemon/cluster/convert/container.go` in
//! <https://github.com/moby/moby>). What engines do differently:
//!
//! - 20.10 takes the fields of `HostConfig` from the body itself if there is no `HostConfig`. Newer engines ignore them
//!   there; here they are read.
//! - `CreateMountpoint` is of API 1.42 (engine 23): older engines, and newer ones asked by an older API, ignore it. For
//!   services, engines before 24 ignore it, too.
//! - In services, a mount's type is compared without regard to case, and one without a type is a bind.
//! - Engines before 23 ignore what follows the JSON of a body; here, as by newer engines, it is refused.
//!
//! Whatever else the engine would refuse is passed on as it is, for the engine to say so in its own words.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use dock_client::text::visible;
use serde_json::value::RawValue;
use thiserror::Error;

use super::json_object::{JsonArray, JsonObject, SaidTwice, boolean, quote, string};
use super::label::{LABEL, LABEL_BYTES, MountLabel};
use super::{api_path, between};

/// The longest body that is read, in bytes.
pub const BODY: usize = 4 * 1024 * 1024;

/// The most mounts of a request, those included that mount no path.
pub const MOUNTS: usize = 1000;

/// The longest name of a volume or a container that is asked for, in bytes.
const NAME: usize = 255;

/// A request that may carry mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountRequest {
    /// Creates a container.
    Container,
    /// Creates a volume.
    Volume,
    /// Creates or updates a service.
    Service,
}

impl MountRequest {
    /// Which request this is, by its method and its target (RFC 9112, section 3.2); `None` if it carries no mounts.
    pub fn of(method: &str, target: &str) -> Option<Self> {
        if method != "POST" {
            return None;
        }
        match &*api_path(target)? {
            "/containers/create" => Some(Self::Container),
            "/volumes/create" => Some(Self::Volume),
            "/services/create" => Some(Self::Service),
            path => {
                let id = between(path, "/services/", "/update")?;
                (!id.contains('/')).then_some(Self::Service)
            }
        }
    }
}

/// The source of a mount: an absolute path of the engine's machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSource {
    /// The path as the client said it: it begins with a slash, and may have `..`, `.` and empty parts.
    pub path: String,
    /// Where it stands in the request.
    pub form: MountForm,
    /// Whether nothing can be written through the mount. For a volume, this is what the volume itself says: other
    /// containers may mount it, too.
    pub is_read_only: bool,
    /// Whether the client asks the engine to make a directory if the path is missing.
    pub creates_missing: bool,
}

/// Where the source of a mount stands in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountForm {
    /// In `HostConfig.Binds`.
    Bind,
    /// In `Mounts`, with the type `bind`.
    Mount,
    /// In the options of a volume of the driver `local`, as the device.
    VolumeDevice,
}

/// What a request mounts by the name that it has on the engine's machine. The names are such that need no escapes in a
/// path of the API: the engine gives no others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Volumes, some of which the engine may create on the way.
    pub volumes: BTreeSet<String>,
    /// Containers whose mounts are taken over, by name or ID.
    pub containers: BTreeSet<String>,
}

/// What is wrong with a request, for the client.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// The body is longer than [`BODY`].
    #[error("the request is larger than 4 MiB, the most that the dock's agent reads to find its mounts")]
    TooLarge,
    /// The body is not JSON.
    #[error("the request's body is not valid JSON: {0}")]
    NotJson(String),
    /// The body is some other JSON.
    #[error("the request's body is JSON, but not an object")]
    NotObject,
    /// There are more mounts than [`MOUNTS`].
    #[error("the request has more than 1,000 mounts")]
    TooManyMounts,
    /// Something has not the type that the engine's API gives it.
    #[error("{place} in the request is not {expected}")]
    WrongType {
        /// Where in the request: `HostConfig.Binds[0]`.
        place: String,
        /// What should be there.
        expected: &'static str,
    },
    /// A name is there twice, perhaps in another case.
    #[error("{place} is in the request twice (small and capital letters make no difference)")]
    SaidTwice {
        /// Where in the request.
        place: String,
    },
    /// A path has a NUL.
    #[error("{place} in the request has a NUL character, which no path can have")]
    Nul {
        /// Where in the request.
        place: String,
    },
    /// The label would be longer than [`LABEL_BYTES`].
    #[error("the paths of the request's mounts are too long: all together, they may have 1 MiB")]
    LongPaths,
    /// A bind can't be said in another form.
    #[error(
        "{place} in the request can't be mounted on the dock: its place there is {there}, and to mount a path with a \
         colon, the option {option:?} can't be used"
    )]
    Colon {
        /// Where in the request.
        place: String,
        /// The path on the dock.
        there: String,
        /// The option that only `HostConfig.Binds` has.
        option: String,
    },
}

/// The sources of the mounts of a request, in their order; one that is there twice, twice.
///
/// # Errors
///
/// If the body is over a limit, is not a JSON object, or has something else where a mount would be.
pub fn sources(kind: MountRequest, body: &[u8]) -> Result<Vec<MountSource>, RequestError> {
    let mut found = Vec::new();
    let mut list = |source: MountSource| {
        found.push(source);
        None
    };
    walk(kind, body, &BTreeMap::new(), &mut list)?;
    Ok(found)
}

/// What a request mounts by name.
///
/// # Errors
///
/// As those of [`sources`].
pub fn references(kind: MountRequest, body: &[u8]) -> Result<References, RequestError> {
    let (_, references) = walk(kind, body, &BTreeMap::new(), &mut |_| None)?;
    Ok(references)
}

/// Puts other paths in the place of sources: a source that is, as it was said, a key of the map becomes its value. The
/// values should be absolute paths without `..`, `.` and empty parts: this is how the engine shows them again.
///
/// The object gets the label [`LABEL`], and a volume that the engine creates with it. `inherited` is what its label says
/// besides: the path on the dock, and the path here, of what is mounted by way of [`References`]. Where nothing is
/// translated or inherited, such a label of the client's own is dropped: nobody but an agent says what stands for what.
/// `None` if the body is to be passed on as it is.
///
/// # Errors
///
/// As those of [`sources`]; and if the paths are too long for a label, or one can't be said in the request.
pub fn translate(
    kind: MountRequest,
    body: &[u8],
    paths: &BTreeMap<String, String>,
    inherited: &BTreeMap<String, String>,
) -> Result<Option<Vec<u8>>, RequestError> {
    let mut translated = |source: MountSource| paths.get(&source.path).filter(|there| **there != source.path).cloned();
    let (body, _) = walk(kind, body, inherited, &mut translated)?;
    Ok(body.map(String::into_bytes))
}

/// Goes through the mounts of a request; gives the body with its changes, if there are any, and what is mounted by name.
fn walk(
    kind: MountRequest,
    body: &[u8],
    inherited: &BTreeMap<String, String>,
    there: &mut dyn FnMut(MountSource) -> Option<String>,
) -> Result<(Option<String>, References), RequestError> {
    let mut root = RequestObject::parse(body)?;
    let mut translation = Translation {
        there,
        inherited,
        references: References::default(),
        mounts: 0,
        label: MountLabel::default(),
    };
    match kind {
        MountRequest::Container => translation.container(&mut root)?,
        MountRequest::Volume => translation.volume(&mut root)?,
        MountRequest::Service => translation.service(&mut root)?,
    }
    Ok((
        root.json.is_changed().then(|| root.json.render()),
        translation.references,
    ))
}

/// The translation of one request.
struct Translation<'m> {
    /// The path on the dock for a source, if it has one.
    there: &'m mut dyn FnMut(MountSource) -> Option<String>,
    /// What the label says besides: paths on the dock, and those here.
    inherited: &'m BTreeMap<String, String>,
    references: References,
    /// How many mounts there were up to now.
    mounts: usize,
    label: MountLabel,
}

impl Translation<'_> {
    fn container(&mut self, root: &mut RequestObject<'_>) -> Result<(), RequestError> {
        match root.object("HostConfig")? {
            Some(mut host) => {
                self.host_config(&mut host)?;
                root.replace("HostConfig", &host)?;
            }
            // As 20.10 reads it.
            None => self.host_config(root)?,
        }
        self.inherit();
        mark(root, &self.label)
    }

    fn volume(&mut self, root: &mut RequestObject<'_>) -> Result<(), RequestError> {
        let mut label = MountLabel::default();
        if is_local(root.text("Driver")?.as_deref())
            && let Some(mut options) = root.map("DriverOpts")?
        {
            label = self.device(&mut options)?;
            root.replace("DriverOpts", &options)?;
        }
        mark(root, &label)
    }

    fn service(&mut self, root: &mut RequestObject<'_>) -> Result<(), RequestError> {
        if let Some(mut task) = root.object("TaskTemplate")? {
            if let Some(mut container) = task.object("ContainerSpec")? {
                if let Some(mut mounts) = container.list("Mounts")? {
                    self.mounts(&mut mounts, Dialect::Service)?;
                    container.replace_list("Mounts", &mounts)?;
                }
                self.inherit();
                mark(&mut container, &self.label)?;
                task.replace("ContainerSpec", &container)?;
            }
            root.replace("TaskTemplate", &task)?;
        }
        mark(root, &self.label)
    }

    /// Notes what is mounted by name. What was said in the request itself comes first.
    fn inherit(&mut self) {
        for (there, here) in self.inherited {
            self.label.note(there, here);
        }
    }

    fn host_config(&mut self, host: &mut RequestObject<'_>) -> Result<(), RequestError> {
        let mut moved = Vec::new();
        if let Some(mut binds) = host.list("Binds")? {
            moved = self.binds(&mut binds)?;
            host.replace_list("Binds", &binds)?;
        }
        match host.list("Mounts")? {
            Some(mut mounts) => {
                self.mounts(&mut mounts, Dialect::Container)?;
                for mount in moved {
                    mounts.json.push(mount);
                }
                host.replace_list("Mounts", &mounts)?;
            }
            None if moved.is_empty() => {}
            None => host.set("Mounts", format!("[{}]", moved.join(",")))?,
        }
        if let Some(others) = host.list("VolumesFrom")? {
            for (index, json) in self.elements(&others)? {
                let Some(json) = json else { continue };
                let other = text(json, &others.place(index))?;
                let name = other.split(':').next().unwrap_or_default().trim_start_matches('/');
                if is_name(name) {
                    self.references.containers.insert(name.to_owned());
                }
            }
        }
        Ok(())
    }

    /// Translates `HostConfig.Binds`; gives those, as JSON, that have to be in `Mounts` instead.
    fn binds(&mut self, binds: &mut RequestList<'_>) -> Result<Vec<String>, RequestError> {
        let mut moved = Vec::new();
        for (index, json) in self.elements(binds)? {
            let place = binds.place(index);
            let Some(json) = json else { continue };
            let bind = text(json, &place)?;
            let mut parts = bind.split(':');
            // A single path is a directory in the container, and a source without a slash is a volume. The engine
            // refuses more parts than three.
            let (Some(source), Some(target), options, None) = (parts.next(), parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            if !source.starts_with('/') {
                self.mounts_volume(source);
                continue;
            }
            refuse_nul(&bind, &place)?;
            let said = MountSource {
                path: source.to_owned(),
                form: MountForm::Bind,
                is_read_only: options.is_some_and(|options| options.split(',').any(|option| option == "ro")),
                creates_missing: true,
            };
            let Some(there) = self.there(said) else { continue };
            self.label.note(&there, source);
            if there.contains(':') {
                let mount = mount_instead(&there, target, options).map_err(|option| RequestError::Colon {
                    place,
                    there: visible(&there),
                    option: visible(option),
                })?;
                moved.push(mount);
                binds.json.remove(index);
            } else {
                let rest = bind.get(source.len()..).unwrap_or_default();
                binds.json.set(index, quote(&format!("{there}{rest}")));
            }
        }
        Ok(moved)
    }

    /// Translates `Mounts`.
    fn mounts(&mut self, mounts: &mut RequestList<'_>, dialect: Dialect) -> Result<(), RequestError> {
        for (index, json) in self.elements(mounts)? {
            let Some(json) = json else { continue };
            let mut mount = RequestObject::structure(json, mounts.place(index))?;
            match dialect.mount_type(mount.text("Type")?.as_deref()) {
                MountType::Bind => self.mounted_path(&mut mount)?,
                MountType::Volume => self.mounted_volume(&mut mount)?,
                MountType::Other => {}
            }
            if mount.json.is_changed() {
                mounts.json.set(index, mount.json.render());
            }
        }
        Ok(())
    }

    /// Translates a mount of type `bind`.
    fn mounted_path(&mut self, mount: &mut RequestObject<'_>) -> Result<(), RequestError> {
        let source = mount.text("Source")?.unwrap_or_default();
        if !source.starts_with('/') {
            return Ok(());
        }
        refuse_nul(&source, &mount.place("Source"))?;
        let options = mount.object("BindOptions")?;
        let said = MountSource {
            path: source.clone().into_owned(),
            form: MountForm::Mount,
            is_read_only: mount.is("ReadOnly")?,
            creates_missing: match options {
                Some(options) => options.is("CreateMountpoint")?,
                None => false,
            },
        };
        if let Some(there) = self.there(said) {
            self.label.note(&there, &source);
            mount.set("Source", quote(&there))?;
        }
        Ok(())
    }

    /// Translates a mount of type `volume`.
    fn mounted_volume(&mut self, mount: &mut RequestObject<'_>) -> Result<(), RequestError> {
        self.mounts_volume(&mount.text("Source")?.unwrap_or_default());
        let Some(mut volume) = mount.object("VolumeOptions")? else {
            return Ok(());
        };
        let mut label = MountLabel::default();
        if let Some(mut driver) = volume.object("DriverConfig")?
            && is_local(driver.text("Name")?.as_deref())
            && let Some(mut options) = driver.map("Options")?
        {
            label = self.device(&mut options)?;
            driver.replace("Options", &options)?;
            volume.replace("DriverConfig", &driver)?;
        }
        // The labels of the volume that the engine creates.
        mark(&mut volume, &label)?;
        mount.replace("VolumeOptions", &volume)
    }

    /// Translates the device in the options of the driver `local`; gives the label of the volume.
    fn device(&mut self, options: &mut RequestObject<'_>) -> Result<MountLabel, RequestError> {
        let mut label = MountLabel::default();
        let words = options.text("o")?.unwrap_or_default();
        let device = options.text("device")?.unwrap_or_default();
        if !device.starts_with('/') || !words.split(',').any(|word| matches!(word, "bind" | "rbind")) {
            return Ok(label);
        }
        refuse_nul(&device, &options.place("device"))?;
        let said = MountSource {
            path: device.clone().into_owned(),
            form: MountForm::VolumeDevice,
            // The last one counts.
            is_read_only: words.rsplit(',').find(|word| matches!(*word, "ro" | "rw")) == Some("ro"),
            creates_missing: false,
        };
        if let Some(there) = self.there(said) {
            self.label.note(&there, &device);
            label.note(&there, &device);
            options.set("device", quote(&there))?;
        }
        Ok(label)
    }

    fn mounts_volume(&mut self, name: &str) {
        if is_name(name) {
            self.references.volumes.insert(name.to_owned());
        }
    }

    fn there(&mut self, source: MountSource) -> Option<String> {
        (self.there)(source)
    }

    /// The elements of a list of mounts, with their places; `None` for those that are `null`.
    fn elements<'a>(&mut self, list: &RequestList<'a>) -> Result<Vec<(usize, Option<&'a str>)>, RequestError> {
        let elements = list.json.elements();
        self.mounts = self.mounts.saturating_add(elements.len());
        if self.mounts > MOUNTS {
            return Err(RequestError::TooManyMounts);
        }
        let elements = elements
            .into_iter()
            .map(|json| Some(json).filter(|json| *json != "null"));
        Ok(elements.enumerate().collect())
    }
}

/// Whose mounts these are: their types are said differently.
#[derive(Clone, Copy, Debug)]
enum Dialect {
    Container,
    Service,
}

#[derive(Clone, Copy, Debug)]
enum MountType {
    Bind,
    Volume,
    Other,
}

impl Dialect {
    fn mount_type(self, said: Option<&str>) -> MountType {
        let said = said.unwrap_or_default();
        match self {
            Self::Container => match said {
                "bind" => MountType::Bind,
                "volume" => MountType::Volume,
                _ => MountType::Other,
            },
            Self::Service => match said.to_uppercase().as_str() {
                "" | "BIND" => MountType::Bind,
                "VOLUME" => MountType::Volume,
                _ => MountType::Other,
            },
        }
    }
}

/// Whether a volume or a container can have this name (`names.RestrictedNamePattern` of the engine), or this ID.
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= NAME
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// Whether the driver of a volume is the engine's own.
fn is_local(driver: Option<&str>) -> bool {
    matches!(driver, None | Some("" | "local"))
}

/// An entry of `HostConfig.Mounts`, as JSON, that is the same as one of `HostConfig.Binds`.
///
/// # Errors
///
/// The option that a mount does not have, or that the engine would refuse.
fn mount_instead<'a>(there: &str, target: &str, options: Option<&'a str>) -> Result<String, &'a str> {
    let (mut access, mut propagation, mut consistency) = (None, None, None);
    for option in options.unwrap_or_default().split(',') {
        let kind = match option {
            "" if options.unwrap_or_default().is_empty() => continue,
            "ro" | "rw" => &mut access,
            "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" => &mut propagation,
            "consistent" | "cached" | "delegated" => &mut consistency,
            // `z` and `Z`, which label the files for SELinux, are only for binds; `nocopy` is only for volumes.
            _ => return Err(option),
        };
        if kind.replace(option).is_some() {
            return Err(option);
        }
    }
    let mut mount = format!(
        r#"{{"Type":"bind","Source":{},"Target":{}"#,
        quote(there),
        quote(target)
    );
    if access == Some("ro") {
        mount.push_str(r#","ReadOnly":true"#);
    }
    if let Some(consistency) = consistency {
        mount.push_str(&format!(r#","Consistency":{}"#, quote(consistency)));
    }
    mount.push_str(r#","BindOptions":{"#);
    if let Some(propagation) = propagation {
        mount.push_str(&format!(r#""Propagation":{},"#, quote(propagation)));
    }
    mount.push_str(r#""CreateMountpoint":true}}"#);
    Ok(mount)
}

/// Gives an object its label, or takes one away that the client said.
fn mark(object: &mut RequestObject<'_>, label: &MountLabel) -> Result<(), RequestError> {
    let labels = object.map("Labels")?;
    if label.is_empty() {
        return match labels {
            Some(mut labels) => {
                labels.remove(LABEL)?;
                object.replace("Labels", &labels)
            }
            None => Ok(()),
        };
    }
    let value = label.value();
    if value.len() > LABEL_BYTES {
        return Err(RequestError::LongPaths);
    }
    match labels {
        Some(mut labels) => {
            labels.set(LABEL, quote(&value))?;
            object.replace("Labels", &labels)
        }
        None => object.set("Labels", format!("{{{}:{}}}", quote(LABEL), quote(&value))),
    }
}

fn refuse_nul(path: &str, place: &str) -> Result<(), RequestError> {
    if path.contains('\0') {
        return Err(RequestError::Nul {
            place: place.to_owned(),
        });
    }
    Ok(())
}

/// The text of a JSON string at a place of the request.
fn text<'a>(json: &'a str, place: &str) -> Result<Cow<'a, str>, RequestError> {
    string(json).ok_or_else(|| wrong_type(place, "a valid string"))
}

fn wrong_type(place: &str, expected: &'static str) -> RequestError {
    RequestError::WrongType {
        place: place.to_owned(),
        expected,
    }
}

/// An object of a request, and where it stands.
struct RequestObject<'a> {
    json: JsonObject<'a>,
    /// Empty for the whole body.
    place: String,
}

impl<'a> RequestObject<'a> {
    /// The whole body.
    fn parse(body: &'a [u8]) -> Result<Self, RequestError> {
        if body.len() > BODY {
            return Err(RequestError::TooLarge);
        }
        let not_json = RequestError::NotJson;
        let body = std::str::from_utf8(body).map_err(|cause| not_json(cause.to_string()))?;
        match JsonObject::structure(body) {
            Some(json) => Ok(Self {
                json,
                place: String::new(),
            }),
            None => match serde_json::from_str::<&RawValue>(body) {
                Ok(_) => Err(RequestError::NotObject),
                Err(cause) => Err(not_json(cause.to_string())),
            },
        }
    }

    fn structure(json: &'a str, place: String) -> Result<Self, RequestError> {
        match JsonObject::structure(json) {
            Some(json) => Ok(Self { json, place }),
            None => Err(wrong_type(&place, "an object")),
        }
    }

    /// Where a field of it stands.
    fn place(&self, field: &str) -> String {
        match self.place.as_str() {
            "" => field.to_owned(),
            place => format!("{place}.{field}"),
        }
    }

    fn twice<T>(&self, field: &str, result: Result<T, SaidTwice>) -> Result<T, RequestError> {
        result.map_err(|SaidTwice| RequestError::SaidTwice {
            place: self.place(field),
        })
    }

    fn value(&self, field: &str) -> Result<Option<&'a str>, RequestError> {
        self.twice(field, self.json.get(field))
    }

    fn object(&self, field: &str) -> Result<Option<Self>, RequestError> {
        let value = self.value(field)?;
        value.map(|json| Self::structure(json, self.place(field))).transpose()
    }

    /// An object whose names are not the engine's: labels, options.
    fn map(&self, field: &str) -> Result<Option<Self>, RequestError> {
        let Some(value) = self.value(field)? else {
            return Ok(None);
        };
        let place = self.place(field);
        match JsonObject::map(value) {
            Some(json) => Ok(Some(Self { json, place })),
            None => Err(wrong_type(&place, "an object")),
        }
    }

    fn list(&self, field: &str) -> Result<Option<RequestList<'a>>, RequestError> {
        let Some(value) = self.value(field)? else {
            return Ok(None);
        };
        let place = self.place(field);
        match JsonArray::parse(value) {
            Some(json) => Ok(Some(RequestList { json, place })),
            None => Err(wrong_type(&place, "a list")),
        }
    }

    fn text(&self, field: &str) -> Result<Option<Cow<'a, str>>, RequestError> {
        let value = self.value(field)?;
        value.map(|json| text(json, &self.place(field))).transpose()
    }

    /// Whether a field is true; one that is absent is not.
    fn is(&self, field: &str) -> Result<bool, RequestError> {
        match self.value(field)? {
            Some(json) => boolean(json).ok_or_else(|| wrong_type(&self.place(field), "true or false")),
            None => Ok(false),
        }
    }

    fn set(&mut self, field: &str, json: String) -> Result<(), RequestError> {
        let result = self.json.set(field, json);
        self.twice(field, result)
    }

    fn remove(&mut self, field: &str) -> Result<(), RequestError> {
        let result = self.json.remove(field);
        self.twice(field, result).map(drop)
    }

    /// Takes the changes of an object in it over.
    fn replace(&mut self, field: &str, inner: &RequestObject<'_>) -> Result<(), RequestError> {
        if inner.json.is_changed() {
            self.set(field, inner.json.render())?;
        }
        Ok(())
    }

    /// Takes the changes of a list in it over.
    fn replace_list(&mut self, field: &str, inner: &RequestList<'_>) -> Result<(), RequestError> {
        if inner.json.is_changed() {
            self.set(field, inner.json.render())?;
        }
        Ok(())
    }
}

/// A list of a request, and where it stands.
struct RequestList<'a> {
    json: JsonArray<'a>,
    place: String,
}

impl RequestList<'_> {
    /// Where an element of it stands.
    fn place(&self, index: usize) -> String {
        format!("{}[{index}]", self.place)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Everything below `/h` is below `/w` on the dock.
    fn on_dock(kind: MountRequest, body: &[u8]) -> BTreeMap<String, String> {
        let sources = sources(kind, body).unwrap().into_iter();
        sources
            .filter_map(|source| {
                let rest = source.path.strip_prefix("/h/")?;
                Some((source.path.clone(), format!("/w/{rest}")))
            })
            .collect()
    }

    /// The translated body; `None` if it is passed on as it is.
    fn translated(kind: MountRequest, body: &str) -> Option<String> {
        let body = body.as_bytes();
        let translated = translate(kind, body, &on_dock(kind, body), &BTreeMap::new()).unwrap();
        translated.map(|body| String::from_utf8(body).unwrap())
    }

    fn translated_value(kind: MountRequest, body: &Value) -> Value {
        serde_json::from_str(&translated(kind, &body.to_string()).unwrap()).unwrap()
    }

    fn error(kind: MountRequest, body: &str) -> String {
        let error = sources(kind, body.as_bytes()).unwrap_err();
        assert_eq!(
            translate(kind, body.as_bytes(), &BTreeMap::new(), &BTreeMap::new()),
            Err(error.clone())
        );
        error.to_string()
    }

    fn paths(kind: MountRequest, body: &str) -> Vec<String> {
        let sources = sources(kind, body.as_bytes()).unwrap();
        sources.into_iter().map(|source| source.path).collect()
    }

    fn source(path: &str, form: MountForm, is_read_only: bool, creates_missing: bool) -> MountSource {
        MountSource {
            path: path.to_owned(),
            form,
            is_read_only,
            creates_missing,
        }
    }

    #[test]
    fn the_requests_that_carry_mounts_are_known() {
        for (target, kind) in [
            ("/containers/create", MountRequest::Container),
            ("/v1.41/containers/create?name=a&platform=", MountRequest::Container),
            ("http://docker/v1.41/containers/create", MountRequest::Container),
            ("/v1.52/volumes/create", MountRequest::Volume),
            ("/services/create", MountRequest::Service),
            ("/v1.24/services/abc/update?version=3", MountRequest::Service),
            ("/services/create/update", MountRequest::Service),
        ] {
            assert_eq!(MountRequest::of("POST", target), Some(kind), "{target}");
            for method in ["GET", "PUT", "post", ""] {
                assert_eq!(MountRequest::of(method, target), None, "{method} {target}");
            }
        }
        for target in [
            "/libpod/containers/create",
            "/v4.0.0/libpod/containers/create",
            "/v4.0.0/libpod/volumes/create",
            "/containers/create/",
            "/containers/a/update",
            "/services/a/b/update",
            "/services//update",
            "/services/a",
            "/networks/create",
            "/build",
            "",
        ] {
            assert_eq!(MountRequest::of("POST", target), None, "{target}");
        }
    }

    #[test]
    fn binds_are_found() {
        let body = json!({"HostConfig": {"Binds": [
            "/a:/t", "/b/../c/:/t:ro", "/d/./e:/t:rw,z", "/f:/t:cached,ro", "/g:/t:", "name:/t", "/only", "/h:/t:ro:x",
            "", ":/t", "./rel:/t", "~/a:/t", "C:\\a:/t", "/a:t", "/:/t", "/o:/t:roo",
        ], "Mounts": null}});
        let bind = |path: &str, is_read_only| source(path, MountForm::Bind, is_read_only, true);
        assert_eq!(
            sources(MountRequest::Container, body.to_string().as_bytes()).unwrap(),
            [
                bind("/a", false),
                bind("/b/../c/", true),
                bind("/d/./e", false),
                bind("/f", true),
                bind("/g", false),
                bind("/a", false),
                bind("/", false),
                bind("/o", false),
            ]
        );
    }

    #[test]
    fn mounts_are_found() {
        let body = json!({"HostConfig": {"Mounts": [
            {"Type": "bind", "Source": "/a:b", "Target": "/t"},
            {"Type": "bind", "Source": "/c", "ReadOnly": true, "BindOptions": {"CreateMountpoint": true}},
            {"Type": "bind", "Source": "/d", "BindOptions": {"CreateMountpoint": false, "Propagation": "rslave"}},
            {"Type": "bind", "Source": "/e", "BindOptions": null, "ReadOnly": null},
            {"Type": "volume", "Source": "/f"},
            {"Type": "Bind", "Source": "/g"},
            {"Source": "/h"},
            {"Type": "bind", "Source": "rel"},
            {"Type": "bind"},
            {"Type": "tmpfs", "Target": "/t"},
            null,
            {"Type": "npipe", "Source": "\\\\.\\pipe\\x"},
        ]}});
        let mount = |path, is_read_only, creates| source(path, MountForm::Mount, is_read_only, creates);
        assert_eq!(
            sources(MountRequest::Container, body.to_string().as_bytes()).unwrap(),
            [
                mount("/a:b", false, false),
                mount("/c", true, true),
                mount("/d", false, false),
                mount("/e", false, false),
            ]
        );
    }

    #[test]
    fn devices_of_local_volumes_are_found() {
        let options = |o: &str, device: &str| json!({"type": "none", "o": o, "device": device});
        let device = |path, is_read_only| source(path, MountForm::VolumeDevice, is_read_only, false);
        for (driver, options, expected) in [
            (json!(null), options("bind", "/a"), Some(device("/a", false))),
            (json!(""), options("rbind", "/a/"), Some(device("/a/", false))),
            (json!("local"), options("ro,bind", "/a"), Some(device("/a", true))),
            (json!("local"), options("bind,ro,rw", "/a"), Some(device("/a", false))),
            (json!("local"), options("bind,rw,ro", "/a"), Some(device("/a", true))),
            (
                json!("local"),
                json!({"o": "bind", "device": "/a", "type": 0}),
                Some(device("/a", false)),
            ),
            (json!("Local"), options("bind", "/a"), None),
            (json!("nfs"), options("bind", "/a"), None),
            (json!("local"), options("addr=1.2.3.4,rw", ":/a"), None),
            (json!("local"), options("lowerdir=/a", "/a"), None),
            (json!("local"), options(" bind", "/a"), None),
            (json!("local"), options("bindx", "/a"), None),
            (json!("local"), options("bind", "a"), None),
            (json!("local"), json!({"O": "bind", "device": "/a"}), None),
            (json!("local"), json!({"o": "bind", "Device": "/a"}), None),
            (json!("local"), json!({"o": "bind", "device": null}), None),
            (json!("local"), json!(null), None),
        ] {
            let expected: Vec<MountSource> = expected.into_iter().collect();
            let volume = json!({"Name": "v", "Driver": driver, "DriverOpts": options}).to_string();
            assert_eq!(
                sources(MountRequest::Volume, volume.as_bytes()).unwrap(),
                expected,
                "{volume}"
            );
            let mount = json!({"Type": "volume", "Source": "v", "ReadOnly": true, "VolumeOptions": {
                "DriverConfig": {"Name": driver, "Options": options},
            }});
            let container = json!({"HostConfig": {"Mounts": [mount]}}).to_string();
            assert_eq!(
                sources(MountRequest::Container, container.as_bytes()).unwrap(),
                expected,
                "{container}"
            );
            let service = json!({"TaskTemplate": {"ContainerSpec": {"Mounts": [mount]}}}).to_string();
            assert_eq!(
                sources(MountRequest::Service, service.as_bytes()).unwrap(),
                expected,
                "{service}"
            );
        }
    }

    #[test]
    fn services_say_types_in_any_case_and_mean_a_bind_by_none() {
        let mount = |kind: Value| json!({"Type": kind, "Source": "/a", "ReadOnly": true});
        let body = |mounts: Value| json!({"TaskTemplate": {"ContainerSpec": {"Mounts": mounts}}}).to_string();
        for kind in [json!("bind"), json!("BIND"), json!("Bind"), json!(""), json!(null)] {
            assert_eq!(
                sources(MountRequest::Service, body(json!([mount(kind)])).as_bytes()).unwrap(),
                [source("/a", MountForm::Mount, true, false)]
            );
        }
        for kind in ["volume", "tmpfs", "npipe", "cluster", "other"] {
            assert_eq!(
                paths(MountRequest::Service, &body(json!([mount(json!(kind))]))),
                [""; 0],
                "{kind}"
            );
        }
        for body in [
            "{}",
            r#"{"TaskTemplate":null}"#,
            r#"{"TaskTemplate":{"PluginSpec":{}}}"#,
            r#"{"Mounts":[{"Type":"bind","Source":"/a"}],"HostConfig":{"Binds":["/a:/b"]}}"#,
        ] {
            assert_eq!(paths(MountRequest::Service, body), [""; 0], "{body}");
        }
    }

    #[test]
    fn a_container_is_translated_and_labelled() {
        let body = json!({
            "Image": "/h/a",
            "Env": ["A=/h/a"],
            "Labels": {"a": "/h/a"},
            "HostConfig": {
                "Binds": ["/h/a/:/h/a:ro,z", "/x:/h/a", "h:/h/a", "/h/a:/b"],
                "Mounts": [
                    {"Type": "bind", "Source": "/h/b:c", "Target": "/h/b", "ReadOnly": true},
                    {"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": {
                        "NoCopy": true,
                        "DriverConfig": {"Options": {"type": "none", "o": "bind", "device": "/h/v"}},
                    }},
                ],
            },
        });
        let map = BTreeMap::from(
            [
                ("/h/a/", "/w/a"),
                ("/h/a", "/w/a"),
                ("/h/b:c", "/w/b:c"),
                ("/h/v", "/w/v"),
                ("/h", "/no"),
            ]
            .map(|(here, there)| (here.to_owned(), there.to_owned())),
        );
        let translated = translate(
            MountRequest::Container,
            body.to_string().as_bytes(),
            &map,
            &BTreeMap::new(),
        )
        .unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&translated.unwrap()).unwrap(),
            json!({
                "Image": "/h/a",
                "Env": ["A=/h/a"],
                "Labels": {
                    "a": "/h/a",
                    LABEL: r#"{"/w/a":"/h/a/","/w/b:c":"/h/b:c","/w/v":"/h/v"}"#,
                },
                "HostConfig": {
                    "Binds": ["/w/a:/h/a:ro,z", "/x:/h/a", "h:/h/a", "/w/a:/b"],
                    "Mounts": [
                        {"Type": "bind", "Source": "/w/b:c", "Target": "/h/b", "ReadOnly": true},
                        {"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": {
                            "NoCopy": true,
                            "DriverConfig": {"Options": {"type": "none", "o": "bind", "device": "/w/v"}},
                            "Labels": {LABEL: r#"{"/w/v":"/h/v"}"#},
                        }},
                    ],
                },
            })
        );
    }

    #[test]
    fn whatever_is_not_translated_is_the_same_to_the_byte() {
        let body = "{ \"Memory\" : 1.50e+400,\r\n\t\"X\":\"\\/\\ud800\", \"hostconfig\":{\"New\":[ 1 ,{ }],\
                    \"BINDS\" : [ \"\\/h\\u002fa:\\u0041\" ,\"\\u002fx:/\\u0042\"]},\"n\":18446744073709551616 } ";
        assert_eq!(
            translated(MountRequest::Container, body).unwrap(),
            "{ \"Memory\" : 1.50e+400,\r\n\t\"X\":\"\\/\\ud800\", \"hostconfig\":{\"New\":[ 1 ,{ }],\
             \"BINDS\" : [ \"/w/a:A\" ,\"\\u002fx:/\\u0042\"]},\"n\":18446744073709551616,\
             \"Labels\":{\"io.dockerutils.mounts\":\"{\\\"/w/a\\\":\\\"/h/a\\\"}\"} } "
        );
    }

    #[test]
    fn binds_may_be_in_the_body_itself() {
        let body = |host: &str| format!(r#"{{"Binds":["/h/a:/a"],"HostConfig":{host}}}"#);
        assert_eq!(paths(MountRequest::Container, r#"{"Binds":["/h/a:/a"]}"#), ["/h/a"]);
        assert_eq!(paths(MountRequest::Container, &body("null")), ["/h/a"]);
        assert_eq!(paths(MountRequest::Container, &body("{}")), [""; 0]);
        assert_eq!(
            translated(MountRequest::Container, &body("null")).unwrap(),
            r#"{"Binds":["/w/a:/a"],"HostConfig":null,"Labels":{"io.dockerutils.mounts":"{\"/w/a\":\"/h/a\"}"}}"#
        );
    }

    #[test]
    fn a_volume_is_translated_and_labelled() {
        let body = json!({
            "Name": "/h/a", "Driver": "local", "Labels": null,
            "DriverOpts": {"type": "none", "o": "bind", "device": "/h/a"},
        });
        assert_eq!(
            translated_value(MountRequest::Volume, &body),
            json!({
                "Name": "/h/a", "Driver": "local", "Labels": {LABEL: r#"{"/w/a":"/h/a"}"#},
                "DriverOpts": {"type": "none", "o": "bind", "device": "/w/a"},
            })
        );
    }

    #[test]
    fn a_service_is_translated_and_both_its_labels_are_set() {
        let body = json!({
            "Name": "s", "Labels": {"a": "b"},
            "TaskTemplate": {"ForceUpdate": 1, "ContainerSpec": {"Image": "i", "Mounts": [
                {"Type": "bind", "Source": "/h/a", "Target": "/a"},
                {"Type": "bind", "Source": "/x", "Target": "/x"},
            ]}},
        });
        let label = r#"{"/w/a":"/h/a"}"#;
        assert_eq!(
            translated_value(MountRequest::Service, &body),
            json!({
                "Name": "s", "Labels": {"a": "b", LABEL: label},
                "TaskTemplate": {"ForceUpdate": 1, "ContainerSpec": {"Image": "i", "Mounts": [
                    {"Type": "bind", "Source": "/w/a", "Target": "/a"},
                    {"Type": "bind", "Source": "/x", "Target": "/x"},
                ], "Labels": {LABEL: label}}},
            })
        );
    }

    #[test]
    fn what_is_mounted_by_name_is_found() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
        let body = json!({"HostConfig": {
            "Binds": ["a:/t", "b.c-d_e:/t:ro", "/h/a:/a", "/only", "only", "../x:/t", "_a:/t", "a b:/t", "f:/t:ro:x", "z%2f:/t"],
            "Mounts": [
                {"Type": "volume", "Source": "g", "Target": "/t"},
                {"Type": "volume", "Source": "h", "VolumeOptions": {"DriverConfig": {"Options": {"o": "bind", "device": "/h/a"}}}},
                {"Type": "volume", "Target": "/t"},
                {"Type": "tmpfs", "Source": "i"},
                {"Type": "bind", "Source": "/j"},
            ],
            "VolumesFrom": ["web", "other:ro", "/slash:rw", "0123abc", "a/b", "", null, ".."],
        }});
        let found = references(MountRequest::Container, body.to_string().as_bytes()).unwrap();
        assert_eq!(found.volumes, names(&["a", "b.c-d_e", "g", "h"]));
        assert_eq!(found.containers, names(&["web", "other", "slash", "0123abc"]));
        let service = json!({"TaskTemplate": {"ContainerSpec": {"Mounts": [
            {"Type": "Volume", "Source": "a"}, {"Source": "b"},
        ]}}, "HostConfig": {"VolumesFrom": ["c"]}});
        let found = references(MountRequest::Service, service.to_string().as_bytes()).unwrap();
        assert_eq!((found.volumes, found.containers), (names(&["a"]), names(&[])));
        let found = references(MountRequest::Volume, br#"{"Name":"a","HostConfig":{"Binds":["b:/c"]}}"#).unwrap();
        assert_eq!(found, References::default());
        let long = format!(r#"{{"HostConfig":{{"Binds":["{}:/t"]}}}}"#, "a".repeat(NAME + 1));
        assert_eq!(
            references(MountRequest::Container, long.as_bytes()).unwrap(),
            References::default()
        );
    }

    #[test]
    fn what_is_mounted_by_name_is_in_the_label_too() {
        let paths = BTreeMap::from([("/h/a".to_owned(), "/w/a".to_owned())]);
        let inherited =
            BTreeMap::from([("/w/a", "/h/./a"), ("/w/v", "/h/v")].map(|(a, b)| (a.to_owned(), b.to_owned())));
        let translated = |kind, body: &str| -> Value {
            let body = translate(kind, body.as_bytes(), &paths, &inherited).unwrap();
            serde_json::from_slice(&body.unwrap()).unwrap()
        };
        let body = r#"{"HostConfig":{"Binds":["/h/a:/a","v:/v"]}}"#;
        let said = translated(MountRequest::Container, body);
        assert_eq!(said["Labels"][LABEL], r#"{"/w/a":"/h/a","/w/v":"/h/v"}"#);
        assert_eq!(said["HostConfig"]["Binds"], json!(["/w/a:/a", "v:/v"]));
        let body = r#"{"TaskTemplate":{"ContainerSpec":{"Mounts":[{"Type":"volume","Source":"v"}]}}}"#;
        let said = translated(MountRequest::Service, body);
        let label = r#"{"/w/a":"/h/./a","/w/v":"/h/v"}"#;
        assert_eq!(said["Labels"][LABEL], label);
        assert_eq!(said["TaskTemplate"]["ContainerSpec"]["Labels"][LABEL], label);
        // A volume is not mounted by itself.
        let body = br#"{"Name":"v"}"#;
        assert_eq!(translate(MountRequest::Volume, body, &paths, &inherited), Ok(None));
    }

    #[test]
    fn the_clients_own_label_is_replaced_or_dropped() {
        let label = r#""io.dockerutils.mounts":"mine","#;
        let other = r#""IO.dockerutils.mounts":"mine""#;
        assert_eq!(
            translated(
                MountRequest::Container,
                &format!(r#"{{"Labels":{{{label}{other}}},"HostConfig":{{"Binds":["/h/a:/a"]}}}}"#)
            )
            .unwrap(),
            format!(
                r#"{{"Labels":{{"io.dockerutils.mounts":"{{\"/w/a\":\"/h/a\"}}",{other}}},"HostConfig":{{"Binds":["/w/a:/a"]}}}}"#
            )
        );
        for (kind, before, after) in [
            (
                MountRequest::Container,
                r#"{"HostConfig":{"Binds":["/x:/x"]},"labels":{"#,
                "}}",
            ),
            (
                MountRequest::Container,
                r#"{"HostConfig":{"Mounts":[{"Type":"volume","VolumeOptions":{"Labels":{"#,
                "}}}]}}",
            ),
            (MountRequest::Volume, r#"{"Driver":"nfs","Labels":{"#, "}}"),
            (MountRequest::Service, r#"{"Labels":{"#, "}}"),
            (
                MountRequest::Service,
                r#"{"TaskTemplate":{"ContainerSpec":{"Labels":{"#,
                "}}}}",
            ),
        ] {
            assert_eq!(
                translated(kind, &format!("{before}{label}{other}{after}")),
                Some(format!("{before}{other}{after}"))
            );
            assert_eq!(translated(kind, &format!("{before}{other}{after}")), None);
        }
    }

    #[test]
    fn a_path_that_is_the_same_on_the_dock_is_left() {
        let same = BTreeMap::from([("/h/a".to_owned(), "/h/a".to_owned())]);
        let body = r#"{"HostConfig":{"Binds":["/h/a:/a"]}}"#;
        assert_eq!(
            translate(MountRequest::Container, body.as_bytes(), &same, &BTreeMap::new()),
            Ok(None)
        );
    }

    #[test]
    fn a_bind_whose_place_has_a_colon_becomes_a_mount() {
        let colon = BTreeMap::from([("/h/a".to_owned(), "/w:1/a".to_owned())]);
        let host = |body: Value| {
            let body = json!({"HostConfig": body}).to_string();
            let translated = translate(MountRequest::Container, body.as_bytes(), &colon, &BTreeMap::new())?;
            let translated: Value = serde_json::from_slice(&translated.unwrap()).unwrap();
            assert_eq!(translated["Labels"][LABEL], r#"{"/w:1/a":"/h/a"}"#);
            Ok::<_, RequestError>(translated["HostConfig"].clone())
        };
        let made = json!({"CreateMountpoint": true});
        for (options, expected) in [
            ("", json!({"BindOptions": made})),
            (":", json!({"BindOptions": made})),
            (":rw", json!({"BindOptions": made})),
            (":ro", json!({"BindOptions": made, "ReadOnly": true})),
            (
                ":cached,ro,rslave",
                json!({
                    "ReadOnly": true, "Consistency": "cached",
                    "BindOptions": {"CreateMountpoint": true, "Propagation": "rslave"},
                }),
            ),
        ] {
            let mut expected = expected;
            expected["Type"] = json!("bind");
            expected["Source"] = json!("/w:1/a");
            expected["Target"] = json!("/t");
            let bind = format!("/h/a:/t{options}");
            assert_eq!(
                host(json!({"Binds": ["/x:/x", bind, "/y:/y"]})).unwrap(),
                json!({"Binds": ["/x:/x", "/y:/y"], "Mounts": [expected]})
            );
            assert_eq!(
                host(json!({"Binds": [bind], "Mounts": [{"Type": "tmpfs", "Target": "/z"}]})).unwrap(),
                json!({"Binds": [], "Mounts": [{"Type": "tmpfs", "Target": "/z"}, expected]})
            );
        }
        for (options, option) in [
            ("z", "z"),
            ("ro,Z", "Z"),
            ("nocopy", "nocopy"),
            ("ro,rw", "rw"),
            ("ro,", ""),
            ("U", "U"),
        ] {
            assert_eq!(
                host(json!({"Binds": ["/x:/x", format!("/h/a:/t:{options}")]}))
                    .unwrap_err()
                    .to_string(),
                format!(
                    "HostConfig.Binds[1] in the request can't be mounted on the dock: its place there is /w:1/a, and \
                     to mount a path with a colon, the option {option:?} can't be used"
                )
            );
        }
        // Where a colon can be said, it is.
        assert_eq!(
            host(json!({"Mounts": [{"Type": "bind", "Source": "/h/a"}]})).unwrap(),
            json!({"Mounts": [{"Type": "bind", "Source": "/w:1/a"}]})
        );
    }

    #[test]
    fn what_is_wrong_is_said_in_the_requests_own_terms() {
        for (body, expected) in [
            ("[]", "the request's body is JSON, but not an object"),
            ("null", "the request's body is JSON, but not an object"),
            (r#"{"HostConfig":[]}"#, "HostConfig in the request is not an object"),
            (
                r#"{"HostConfig":{"Binds":"/a:/b"}}"#,
                "HostConfig.Binds in the request is not a list",
            ),
            (
                r#"{"HostConfig":{"Binds":["/a:/b",1]}}"#,
                "HostConfig.Binds[1] in the request is not a valid string",
            ),
            (
                r#"{"HostConfig":{"Binds":["/a:/\ud800"]}}"#,
                "HostConfig.Binds[0] in the request is not a valid string",
            ),
            (
                r#"{"HostConfig":{"Mounts":{}}}"#,
                "HostConfig.Mounts in the request is not a list",
            ),
            (
                r#"{"HostConfig":{"VolumesFrom":["a",1]}}"#,
                "HostConfig.VolumesFrom[1] in the request is not a valid string",
            ),
            (
                r#"{"HostConfig":{"Mounts":[{"Type":"volume","Source":1}]}}"#,
                "HostConfig.Mounts[0].Source in the request is not a valid string",
            ),
            (
                r#"{"HostConfig":{"Mounts":["/a"]}}"#,
                "HostConfig.Mounts[0] in the request is not an object",
            ),
            (
                r#"{"HostConfig":{"Mounts":[{"Type":1}]}}"#,
                "HostConfig.Mounts[0].Type in the request is not a valid string",
            ),
            (
                r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":["/a"]}]}}"#,
                "HostConfig.Mounts[0].Source in the request is not a valid string",
            ),
            (
                r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","ReadOnly":"true"}]}}"#,
                "HostConfig.Mounts[0].ReadOnly in the request is not true or false",
            ),
            (
                r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","BindOptions":true}]}}"#,
                "HostConfig.Mounts[0].BindOptions in the request is not an object",
            ),
            (
                r#"{"HostConfig":{"Mounts":[{"Type":"volume","VolumeOptions":{"DriverConfig":{"Options":[]}}}]}}"#,
                "HostConfig.Mounts[0].VolumeOptions.DriverConfig.Options in the request is not an object",
            ),
            (r#"{"Labels":["a=b"]}"#, "Labels in the request is not an object"),
            (
                r#"{"HostConfig":{"Binds":["/a\u0000:/b"]}}"#,
                "HostConfig.Binds[0] in the request has a NUL character, which no path can have",
            ),
            (
                r#"{"HostConfig":{"Binds":["/a:/b\u0000"]}}"#,
                "HostConfig.Binds[0] in the request has a NUL character, which no path can have",
            ),
            (
                r#"{"HostConfig":{"Mounts":[{},{"Type":"bind","Source":"/\u0000"}]}}"#,
                "HostConfig.Mounts[1].Source in the request has a NUL character, which no path can have",
            ),
            (
                r#"{"HostConfig":{},"hostconfig":{}}"#,
                "HostConfig is in the request twice (small and capital letters make no difference)",
            ),
            (
                r#"{"HostConfig":{"Binds":[],"bind\u017f":null}}"#,
                "HostConfig.Binds is in the request twice (small and capital letters make no difference)",
            ),
            (
                r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","SOURCE":"/b"}]}}"#,
                "HostConfig.Mounts[0].Source is in the request twice (small and capital letters make no difference)",
            ),
            (
                r#"{"Labels":{"io.dockerutils.mounts":"a","io.dockerutils.mounts":"b"}}"#,
                "Labels.io.dockerutils.mounts is in the request twice (small and capital letters make no difference)",
            ),
        ] {
            assert_eq!(error(MountRequest::Container, body), expected, "{body}");
        }
        for (kind, body, expected) in [
            (
                MountRequest::Volume,
                r#"{"DriverOpts":{"o":"bind","device":1}}"#,
                "DriverOpts.device in the request is not a valid string",
            ),
            (
                MountRequest::Volume,
                r#"{"DriverOpts":{"o":"bind","device":"/\u0000"}}"#,
                "DriverOpts.device in the request has a NUL character, which no path can have",
            ),
            (
                MountRequest::Service,
                r#"{"TaskTemplate":{"ContainerSpec":{"Mounts":[1]}}}"#,
                "TaskTemplate.ContainerSpec.Mounts[0] in the request is not an object",
            ),
        ] {
            assert_eq!(error(kind, body), expected, "{body}");
        }
        for body in ["", "{", "{}{}", "\u{feff}{}", "{\"HostConfig\":nil}"] {
            let said = error(MountRequest::Container, body);
            assert!(said.starts_with("the request's body is not valid JSON: "), "{said}");
        }
        assert!(matches!(
            sources(MountRequest::Container, b"{\"a\":\"\xff\"}"),
            Err(RequestError::NotJson(_))
        ));
    }

    #[test]
    fn what_is_not_asked_for_is_not_judged() {
        for body in [
            r#"{"Mounts":1,"HostConfig":{"x":1,"X":2}}"#,
            r#"{"HostConfig":{"Mounts":[{"Type":"tmpfs","Source":1,"ReadOnly":"x","VolumeOptions":2}]}}"#,
            r#"{"HostConfig":{"Binds":null,"Mounts":null},"Labels":null}"#,
            r#"{"HostConfig":{"Binds":[null],"Mounts":[null]}}"#,
            r#"{"HostConfig":{"Binds":["a:/b\u0000"]}}"#,
            r#"{"Labels":{"a":1,"a":2}}"#,
        ] {
            assert_eq!(paths(MountRequest::Container, body), [""; 0], "{body}");
            assert_eq!(translated(MountRequest::Container, body), None, "{body}");
        }
    }

    #[test]
    fn a_request_has_limits() {
        let filled = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - r#"{"a":""}"#.len()));
        assert_eq!(paths(MountRequest::Container, &filled(BODY)), [""; 0]);
        assert_eq!(
            error(MountRequest::Container, &filled(BODY + 1)),
            "the request is larger than 4 MiB, the most that the dock's agent reads to find its mounts"
        );

        let body = |binds: usize, mounts: usize| {
            json!({"HostConfig": {"Binds": vec!["a:/b"; binds], "Mounts": vec![json!({"Type": "tmpfs"}); mounts]}})
                .to_string()
        };
        assert_eq!(paths(MountRequest::Container, &body(400, 600)), [""; 0]);
        for (binds, mounts) in [(400, 601), (1001, 0), (0, 1001)] {
            assert_eq!(
                error(MountRequest::Container, &body(binds, mounts)),
                "the request has more than 1,000 mounts"
            );
        }

        let long = |there: usize| {
            let body = r#"{"HostConfig":{"Binds":["/h/a:/a"]}}"#;
            let paths = BTreeMap::from([("/h/a".to_owned(), format!("/{}", "w".repeat(there - 1)))]);
            translate(MountRequest::Container, body.as_bytes(), &paths, &BTreeMap::new())
        };
        let around = r#"{"":"/h/a"}"#.len();
        assert!(matches!(long(LABEL_BYTES - around), Ok(Some(_))));
        assert_eq!(long(LABEL_BYTES - around + 1), Err(RequestError::LongPaths));
    }

    /// JSON without mounts, in names that could be mistaken for those of mounts.
    fn other_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "(/h/|[a-z:/\"\\\\ é\n\u{1f600}]){0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 32, 5, |inner| {
            let name = prop_oneof![
                Just("Bind".to_owned()),
                Just("Mount".to_owned()),
                Just("Source".to_owned()),
                Just("Host-Config".to_owned()),
                "[a-zA-Z]{4,8}\u{e9}",
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(name, inner, 0..5).prop_map(|members| json!(members)),
            ]
        })
    }

    fn any_case(name: &'static str) -> impl Strategy<Value = String> {
        prop::collection::vec(any::<bool>(), name.len()).prop_map(move |capital| {
            let letters = name.chars().zip(capital);
            letters
                .map(|(letter, is_capital)| match (letter, is_capital) {
                    ('s', true) => '\u{17f}',
                    ('k', true) => '\u{212a}',
                    (letter, true) => letter.to_ascii_uppercase(),
                    (letter, false) => letter.to_ascii_lowercase(),
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn a_body_without_mounts_is_passed_on(fields in prop::collection::vec(other_json(), 1..4)) {
            for kind in [MountRequest::Container, MountRequest::Volume, MountRequest::Service] {
                let members: Vec<String> =
                    fields.iter().enumerate().map(|(index, value)| format!("\"Field{index}\" :{value}")).collect();
                let body = format!("{{{}}}", members.join(", "));
                prop_assert_eq!(sources(kind, body.as_bytes()), Ok(Vec::new()));
                prop_assert_eq!(translate(kind, body.as_bytes(), &BTreeMap::new(), &BTreeMap::new()), Ok(None));
            }
        }

        #[test]
        fn all_around_a_bind_is_the_same_to_the_byte(
            before in other_json(),
            after in other_json(),
            blanks in "[ \n\t]{0,3}",
        ) {
            let body = |source: &str, label: &str| {
                format!(
                    "{blanks}{{\"Before\":{blanks}{before},\"Labels\":{{\"a\":\"b\"{label}}},{blanks}\"HostConfig\" :\
                     {{\"X\":{after}{blanks},\"Binds\":[\"/x:/x\",{blanks}\"{source}:/t:ro\"{blanks}],\"Y\":1.0e5}},\
                     \"After\":{after}}}"
                )
            };
            let label = ",\"io.dockerutils.mounts\":\"{\\\"/w/a b\\\":\\\"/h/a b\\\"}\"";
            prop_assert_eq!(
                translated(MountRequest::Container, &body("/h/a b", "")),
                Some(body("/w/a b", label))
            );
        }

        #[test]
        fn names_are_found_in_any_case(
            host in any_case("HostConfig"),
            binds in any_case("Binds"),
            mounts in any_case("Mounts"),
            kind in any_case("Type"),
            path in any_case("Source"),
        ) {
            let body = format!(
                r#"{{"{host}":{{"{binds}":["/h/a:/a"],"{mounts}":[{{"{kind}":"bind","{path}":"/h/b"}}]}}}}"#
            );
            prop_assert_eq!(paths(MountRequest::Container, &body), ["/h/a", "/h/b"]);
            let label = r#""Labels":{"io.dockerutils.mounts":"{\"/w/a\":\"/h/a\",\"/w/b\":\"/h/b\"}"}"#;
            prop_assert_eq!(
                translated(MountRequest::Container, &body),
                Some(format!(
                    r#"{{"{host}":{{"{binds}":["/w/a:/a"],"{mounts}":[{{"{kind}":"bind","{path}":"/w/b"}}]}},{label}}}"#
                ))
            );
        }

        #[test]
        fn a_name_that_is_said_twice_is_refused(first in any_case("Binds"), second in any_case("Binds")) {
            let body = format!(r#"{{"HostConfig":{{"{first}":[],"x":0,"{second}":["/h/a:/a"]}}}}"#);
            prop_assert_eq!(
                sources(MountRequest::Container, body.as_bytes()),
                Err(RequestError::SaidTwice { place: "HostConfig.Binds".to_owned() })
            );
        }

        #[test]
        fn any_body_is_read_or_refused(body in "[{}\\[\\]\":,a/]{0,24}|\\{\"(HostConfig|Labels)\":\\PC{0,24}\\}") {
            for kind in [MountRequest::Container, MountRequest::Volume, MountRequest::Service] {
                if let Ok(found) = sources(kind, body.as_bytes()) {
                    prop_assert!(found.iter().all(|source| source.path.starts_with('/')));
                    prop_assert!(serde_json::from_str::<&RawValue>(&body).is_ok());
                }
            }
        }
    }
}
