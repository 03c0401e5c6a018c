//! What the client said, in the place of the dock's paths, in answers of the engine.
//!
//! Where an object has its labels, and where it shows the sources of its mounts:
//!
//! | object | labels | sources |
//! |---|---|---|
//! | container, in detail | `Config.Labels` | `HostConfig.Binds`, `HostConfig.Mounts`, `Mounts[].Source` |
//! | container, in a list | `Labels` | `Mounts[].Source` |
//! | volume | `Labels` | `Options.device` |
//! | `Spec` and `PreviousSpec` of a service | `Labels` | |
//! | `ContainerSpec`, in `TaskTemplate` of these, or in `Spec` of a task | `Labels` | `Mounts` |
//!
//! An entry of `HostConfig.Mounts` or `ContainerSpec.Mounts` shows a path as `Source`, or as the `device` of a volume
//! in `VolumeOptions.DriverConfig.Options`; `VolumeOptions.Labels` are those that the volume gets. The disk usage has
//! lists of containers and volumes: `Containers` and `Volumes`; from API 1.52 on, `ContainerUsage.Items` and
//! `VolumeUsage.Items` (<https://docs.docker.com/reference/api/engine/>).
//!
//! The label is a stranger's text: whoever may use the engine can write it. So only what is exactly a path that the
//! label names is changed, only where that path lies in a workspace of this machine, and only in the object that bears
//! the label. An object whose form is not understood stays as it is, with its label.

use super::json_object::{JsonArray, JsonObject, quote, string};
use super::label::{LABEL, MountLabel};
use super::{api_path, between};

/// An answer that may show mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountAnswer {
    /// A container in detail.
    Container,
    /// The list of containers.
    Containers,
    /// A volume.
    Volume,
    /// The list of volumes.
    Volumes,
    /// A service.
    Service,
    /// The list of services.
    Services,
    /// A task of a service.
    Task,
    /// The list of tasks.
    Tasks,
    /// What takes how much space.
    DiskUsage,
}

impl MountAnswer {
    /// Which answer this is, by the method and the target (RFC 9112, section 3.2) of the request, and the status;
    /// `None` if it shows no mounts.
    pub fn of(method: &str, target: &str, status: u16) -> Option<Self> {
        let path = &*api_path(target)?;
        match (method, status) {
            ("POST", 201) => return (path == "/volumes/create").then_some(Self::Volume),
            ("GET", 200) => {}
            _ => return None,
        }
        match path {
            "/containers/json" => return Some(Self::Containers),
            "/volumes" => return Some(Self::Volumes),
            "/services" => return Some(Self::Services),
            "/tasks" => return Some(Self::Tasks),
            "/system/df" => return Some(Self::DiskUsage),
            _ => {}
        }
        // The engine takes a name with slashes, too, for containers and volumes.
        if between(path, "/containers/", "/json").is_some() {
            return Some(Self::Container);
        }
        if between(path, "/volumes/", "").is_some() {
            return Some(Self::Volume);
        }
        let is_one = |before| between(path, before, "").is_some_and(|id| !id.contains('/'));
        if is_one("/services/") {
            return Some(Self::Service);
        }
        is_one("/tasks/").then_some(Self::Task)
    }
}

/// Whether there may be something to change in an answer, from a quick look at it.
pub(crate) fn may_show(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok_and(|body| body.contains(LABEL))
}

/// Puts what the client said in the place of the dock's paths, in the objects that bear the label [`LABEL`], and takes
/// the label out. `None` if there is nothing to change.
///
/// `is_ours` says of a path on the dock and a path here, as the label has them, whether the first is the place of the second in a
/// workspace of this machine. An object whose label names no such path stays as it is.
pub fn restore(kind: MountAnswer, body: &[u8], is_ours: &dyn Fn(&str, &str) -> bool) -> Option<Vec<u8>> {
    let body = std::str::from_utf8(body).ok()?;
    if !body.contains(LABEL) {
        return None;
    }
    let restored = match kind {
        MountAnswer::Container => container(body, is_ours),
        MountAnswer::Containers => each(body, &|json| container_in_list(json, is_ours)),
        MountAnswer::Volume => volume(body, is_ours),
        MountAnswer::Volumes => inside(body, "Volumes", &|json| each(json, &|json| volume(json, is_ours))),
        MountAnswer::Service => service(body, is_ours),
        MountAnswer::Services => each(body, &|json| service(json, is_ours)),
        MountAnswer::Task => task(body, is_ours),
        MountAnswer::Tasks => each(body, &|json| task(json, is_ours)),
        MountAnswer::DiskUsage => disk_usage(body, is_ours),
    };
    restored.map(String::into_bytes)
}

// Each of these gives the JSON with its changes; `None` if it is to stay as it is: because there is nothing to change,
// or because it has not the form that the engine's API gives it.

fn container(json: &str, is_ours: &dyn Fn(&str, &str) -> bool) -> Option<String> {
    let mut container = JsonObject::structure(json)?;
    let mut config = structure(&container, "Config")?;
    let label = take_label(&mut config, is_ours, IfEmpty::Stays)?;
    container.set("Config", config.render()).ok()?;
    if let Some(host) = container.get("HostConfig").ok()? {
        let mut host = JsonObject::structure(host)?;
        if let Some(binds) = host.get("Binds").ok()?
            && let Some(binds) = each(binds, &|json| bind(json, &label))
        {
            host.set("Binds", binds).ok()?;
        }
        mounts(&mut host, &label, is_ours)?;
        container.set("HostConfig", host.render()).ok()?;
    }
    mount_points(&mut container, &label)?;
    Some(container.render())
}

fn container_in_list(json: &str, is_ours: &dyn Fn(&str, &str) -> bool) -> Option<String> {
    let mut container = JsonObject::structure(json)?;
    let label = take_label(&mut container, is_ours, IfEmpty::Stays)?;
    mount_points(&mut container, &label)?;
    Some(container.render())
}

fn volume(json: &str, is_ours: &dyn Fn(&str, &str) -> bool) -> Option<String> {
    let mut volume = JsonObject::structure(json)?;
    let label = take_label(&mut volume, is_ours, IfEmpty::Stays)?;
    if let Some(options) = volume.get("Options").ok()? {
        let mut options = JsonObject::map(options)?;
        device(&mut options, &label)?;
        volume.set("Options", options.render()).ok()?;
    }
    Some(volume.render())
}

fn service(json: &str, is_ours: &dyn Fn(&str, &str) -> bool) -> Option<String> {
    let mut service = JsonObject::structure(json)?;
    for field in ["Spec", "PreviousSpec"] {
        if let Some(spec) = service.get(field).ok()?
            && let Some(spec) = service_spec(spec, is_ours)
        {
            service.set(field, spec).ok()?;
        }
    }
    service.is_changed().then(|| service.render())
}

fn service_spec(json: &str, is_ours: &dyn Fn(&str, &str) -> bool) -> Option<String> {
    let mut spec = JsonObject::structure(json)?;
    let label = take_label(&mut spec, is_ours, IfEmpty::Stays);
    if let Some(task) = spec.get("TaskTemplate").ok()?
        && let Some(task) = task_spec(task, label.as_ref(), is_ours)
    {
        spec.set("TaskTemplate", task).ok()?;
    }
    spec.is_changed().then(|| spec.render())
}

fn task(json: &str, is_ours: &dyn Fn(&str, &str) -> bool) -> Option<String> {
    let mut task = JsonObject::structure(json)?;
    let label = take_label(&mut task, is_ours, IfEmpty::Stays);
    if let Some(spec) = task.get("Spec").ok()?
        && let Some(spec) = task_spec(spec, label.as_ref(), is_ours)
    {
        task.set("Spec", spec).ok()?;
    }
    task.is_changed().then(|| task.render())
}

/// The specification of tasks. The label of the containers counts; without one, that of the service does.
fn task_spec(json: &str, service: Option<&MountLabel>, is_ours: &dyn Fn(&str, &str) -> bool) -> Option<String> {
    inside(json, "ContainerSpec", &|json| {
        let mut container = JsonObject::structure(json)?;
        let own = take_label(&mut container, is_ours, IfEmpty::Goes);
        mounts(&mut container, own.as_ref().or(service)?, is_ours)?;
        container.is_changed().then(|| container.render())
    })
}

fn disk_usage(json: &str, is_ours: &dyn Fn(&str, &str) -> bool) -> Option<String> {
    let mut usage = JsonObject::structure(json)?;
    let containers = |json: &str| each(json, &|json| container_in_list(json, is_ours));
    let volumes = |json: &str| each(json, &|json| volume(json, is_ours));
    change(&mut usage, "Containers", &containers)?;
    change(&mut usage, "Volumes", &volumes)?;
    change(&mut usage, "ContainerUsage", &|json| inside(json, "Items", &containers))?;
    change(&mut usage, "VolumeUsage", &|json| inside(json, "Items", &volumes))?;
    usage.is_changed().then(|| usage.render())
}

/// An entry of `HostConfig.Binds`: `SOURCE:TARGET[:OPTIONS]`.
fn bind(json: &str, label: &MountLabel) -> Option<String> {
    let bind = string(json)?;
    let (there, rest) = bind.split_once(':')?;
    // With a colon in it, the source would end at another place.
    let here = label.here(there).filter(|here| !here.contains(':'))?;
    Some(quote(&format!("{here}:{rest}")))
}

/// The field `Mounts` of `HostConfig` or `ContainerSpec`: as they were asked for.
fn mounts(object: &mut JsonObject<'_>, label: &MountLabel, is_ours: &dyn Fn(&str, &str) -> bool) -> Option<()> {
    change(object, "Mounts", &|json| {
        each(json, &|json| mount(json, label, is_ours))
    })
}

fn mount(json: &str, label: &MountLabel, is_ours: &dyn Fn(&str, &str) -> bool) -> Option<String> {
    let mut mount = JsonObject::structure(json)?;
    if let Some(source) = mount.get("Source").ok()?
        && let Some(here) = label.here(&string(source)?)
    {
        mount.set("Source", quote(here)).ok()?;
    }
    change(&mut mount, "VolumeOptions", &|json| {
        let mut volume = JsonObject::structure(json)?;
        let _ = take_label(&mut volume, is_ours, IfEmpty::Goes);
        change(&mut volume, "DriverConfig", &|json| {
            inside(json, "Options", &|json| {
                let mut options = JsonObject::map(json)?;
                device(&mut options, label)?;
                options.is_changed().then(|| options.render())
            })
        })?;
        volume.is_changed().then(|| volume.render())
    })?;
    mount.is_changed().then(|| mount.render())
}

/// The field `Mounts` of a container: as they are mounted. The engine shows these sources in their shortest form.
fn mount_points(container: &mut JsonObject<'_>, label: &MountLabel) -> Option<()> {
    change(container, "Mounts", &|json| {
        each(json, &|json| {
            let mut mount = JsonObject::structure(json)?;
            let source = string(mount.get("Source").ok()??)?;
            let here = label.here(&source)?;
            mount.set("Source", quote(&shortest(here))).ok()?;
            Some(mount.render())
        })
    })
}

/// The device among the options of a volume.
fn device(options: &mut JsonObject<'_>, label: &MountLabel) -> Option<()> {
    for name in ["device", "Device"] {
        if let Some(there) = options.get(name).ok()?
            && let Some(here) = label.here(&string(there)?)
        {
            options.set(name, quote(here)).ok()?;
        }
    }
    Some(())
}

/// What becomes of `Labels` without any label in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IfEmpty {
    Stays,
    /// As the engine itself leaves the field out then.
    Goes,
}

/// Takes the label out of the field `Labels` of an object; `None`, and no change, if none of its paths is ours.
fn take_label(object: &mut JsonObject<'_>, is_ours: &dyn Fn(&str, &str) -> bool, empty: IfEmpty) -> Option<MountLabel> {
    let mut labels = JsonObject::map(object.get("Labels").ok()??)?;
    let mut label = MountLabel::parse(&string(labels.get(LABEL).ok()??)?)?;
    label.retain(is_ours);
    if label.is_empty() {
        return None;
    }
    labels.remove(LABEL).ok()?;
    if labels.is_empty() && empty == IfEmpty::Goes {
        object.remove("Labels").ok()?;
    } else {
        object.set("Labels", labels.render()).ok()?;
    }
    Some(label)
}

fn structure<'a>(object: &JsonObject<'a>, field: &str) -> Option<JsonObject<'a>> {
    JsonObject::structure(object.get(field).ok()??)
}

/// Changes the value of a field, if there is something to change; `None` if the field is said twice.
fn change(object: &mut JsonObject<'_>, field: &str, changed: &dyn Fn(&str) -> Option<String>) -> Option<()> {
    if let Some(value) = object.get(field).ok()?
        && let Some(value) = changed(value)
    {
        object.set(field, value).ok()?;
    }
    Some(())
}

/// An object of which only this field is changed.
fn inside(json: &str, field: &str, changed: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let mut object = JsonObject::structure(json)?;
    change(&mut object, field, changed)?;
    object.is_changed().then(|| object.render())
}

/// Changes each element of a list that is to be changed.
fn each(json: &str, changed: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let mut list = JsonArray::parse(json)?;
    for (index, element) in list.elements().into_iter().enumerate() {
        if let Some(element) = changed(element) {
            list.set(index, element);
        }
    }
    list.is_changed().then(|| list.render())
}

/// The shortest form of an absolute path, without `..`, `.` and empty parts: as Go's `path.Clean` makes it, which does
/// not look at links.
fn shortest(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::requests::{MountRequest, sources, translate};
    use super::*;

    fn is_ours(there: &str, _: &str) -> bool {
        there.starts_with("/w/")
    }

    /// The answer with what is restored in it; as it is if there is nothing to restore.
    fn restored(kind: MountAnswer, body: &str) -> String {
        match restore(kind, body.as_bytes(), &is_ours) {
            Some(body) => String::from_utf8(body).unwrap(),
            None => body.to_owned(),
        }
    }

    fn restored_value(kind: MountAnswer, body: &Value) -> Value {
        serde_json::from_str(&restored(kind, &body.to_string())).unwrap()
    }

    fn assert_stays(kind: MountAnswer, body: &str) {
        assert_eq!(restore(kind, body.as_bytes(), &is_ours), None, "{body}");
    }

    #[test]
    fn the_answers_that_show_mounts_are_known() {
        let get = |target: &str| MountAnswer::of("GET", target, 200);
        for (target, kind) in [
            ("/containers/json", MountAnswer::Containers),
            ("/v1.41/containers/json?all=1&size=1", MountAnswer::Containers),
            ("/v1.41/containers/abc/json?size=1", MountAnswer::Container),
            ("/containers/json/json", MountAnswer::Container),
            ("/v1.52/volumes", MountAnswer::Volumes),
            ("/v1.52/volumes/a", MountAnswer::Volume),
            ("/services", MountAnswer::Services),
            ("/services/a?insertDefaults=1", MountAnswer::Service),
            ("/v1.24/tasks", MountAnswer::Tasks),
            ("/v1.24/tasks/a", MountAnswer::Task),
            ("/system/df?type=volume", MountAnswer::DiskUsage),
        ] {
            assert_eq!(get(target), Some(kind), "{target}");
            for (method, status) in [("GET", 404), ("GET", 304), ("POST", 200), ("HEAD", 200), ("POST", 201)] {
                assert_eq!(
                    MountAnswer::of(method, target, status),
                    None,
                    "{method} {target} {status}"
                );
            }
        }
        assert_eq!(
            MountAnswer::of("POST", "/v1.41/volumes/create", 201),
            Some(MountAnswer::Volume)
        );
        for target in [
            "/libpod/containers/json",
            "/v4.0.0/libpod/volumes/a/json",
            "/containers/a/top",
            "/containers/a",
            "/images/json",
            "/images/a/json",
            "/services/a/logs",
            "/tasks/a/logs",
            "/services/",
            "/volumes/",
            "/events",
            "/system",
        ] {
            assert_eq!(get(target), None, "{target}");
        }
        for target in ["/containers/create", "/services/create", "/volumes"] {
            assert_eq!(MountAnswer::of("POST", target, 201), None, "{target}");
        }
    }

    #[test]
    fn a_container_shows_what_the_client_said() {
        let label = r#"{"/w/a":"/home/ann/a/","/w/a:b":"/home/ann/a:b","/w/v":"/home/ann/./v"}"#;
        let own = r#"{"/w/v":"/home/ann/./v"}"#;
        let container = json!({
            "Id": "abc",
            "Config": {"Image": "/w/a", "Labels": {"x": "/w/a", LABEL: label}, "Env": ["A=/w/a"]},
            "HostConfig": {
                "Binds": ["/w/a:/app:ro", "/w/a/b:/b", "/w/v:/w/a", "named:/w/a", "/w/a"],
                "Mounts": [
                    {"Type": "bind", "Source": "/w/a:b", "Target": "/w/a"},
                    {"Type": "bind", "Source": "/w/other", "Target": "/x"},
                    {"Type": "volume", "Source": "named", "Target": "/v", "VolumeOptions": {
                        "Labels": {LABEL: own},
                        "DriverConfig": {"Name": "local", "Options": {"o": "bind", "device": "/w/v"}},
                    }},
                ],
            },
            "Mounts": [
                {"Type": "bind", "Source": "/w/a", "Destination": "/w/a"},
                {"Type": "volume", "Name": "n", "Source": "/var/lib/docker/volumes/n/_data", "Destination": "/v"},
                {"Type": "bind", "Source": "/w/v", "Destination": "/w/v"},
            ],
        });
        assert_eq!(
            restored_value(MountAnswer::Container, &container),
            json!({
                "Id": "abc",
                "Config": {"Image": "/w/a", "Labels": {"x": "/w/a"}, "Env": ["A=/w/a"]},
                "HostConfig": {
                    "Binds": ["/home/ann/a/:/app:ro", "/w/a/b:/b", "/home/ann/./v:/w/a", "named:/w/a", "/w/a"],
                    "Mounts": [
                        {"Type": "bind", "Source": "/home/ann/a:b", "Target": "/w/a"},
                        {"Type": "bind", "Source": "/w/other", "Target": "/x"},
                        {"Type": "volume", "Source": "named", "Target": "/v", "VolumeOptions": {
                            "DriverConfig": {"Name": "local", "Options": {"o": "bind", "device": "/home/ann/./v"}},
                        }},
                    ],
                },
                "Mounts": [
                    // The engine shows what is mounted in the shortest form.
                    {"Type": "bind", "Source": "/home/ann/a", "Destination": "/w/a"},
                    {"Type": "volume", "Name": "n", "Source": "/var/lib/docker/volumes/n/_data", "Destination": "/v"},
                    {"Type": "bind", "Source": "/home/ann/v", "Destination": "/w/v"},
                ],
            })
        );
    }

    #[test]
    fn whatever_is_not_restored_is_the_same_to_the_byte() {
        let container = r#" {"Size" : 1.50e+400, "Config":{ "Labels" : {"a":"\u003c\/",
            "io.dockerutils.mounts":"{\"/w/a\":\"/h/a\"}" ,"b":"2"},"New":[1 ,2]} ,
            "HostConfig":{"Memory":18446744073709551616,"Binds":[ "\/w\u002fa:/a", "/x:/x\u003e" ]}, "Mounts" : [ ]} "#;
        assert_eq!(
            restored(MountAnswer::Container, container),
            r#" {"Size" : 1.50e+400, "Config":{ "Labels" : {"a":"\u003c\/" ,"b":"2"},"New":[1 ,2]} ,
            "HostConfig":{"Memory":18446744073709551616,"Binds":[ "/h/a:/a", "/x:/x\u003e" ]}, "Mounts" : [ ]} "#
        );
    }

    #[test]
    fn a_bind_whose_path_here_has_a_colon_stays() {
        let container = json!({
            "Config": {"Labels": {LABEL: r#"{"/w/a":"/h:a"}"#}},
            "HostConfig": {"Binds": ["/w/a:/a"], "Mounts": null},
            "Mounts": [{"Source": "/w/a"}],
        });
        assert_eq!(
            restored_value(MountAnswer::Container, &container),
            json!({
                "Config": {"Labels": {}},
                "HostConfig": {"Binds": ["/w/a:/a"], "Mounts": null},
                "Mounts": [{"Source": "/h:a"}],
            })
        );
    }

    #[test]
    fn a_list_shows_for_each_container_what_its_own_label_says() {
        let labelled = |label: &str| json!({"Labels": {LABEL: label, "a": "b"}, "Mounts": [{"Source": "/w/a"}]});
        let shown = |path: &str| json!({"Labels": {"a": "b"}, "Mounts": [{"Source": path}]});
        let plain = shown("/w/a");
        let list = json!([
            plain,
            labelled(r#"{"/w/a":"/h/a"}"#),
            labelled(r#"{"/w/b":"/h/b"}"#),
            labelled(r#"{"/w/a":"/h/c"}"#),
            labelled(r#"{"/x/a":"/h/x"}"#),
            labelled("nonsense"),
            {"Labels": null, "Mounts": null},
            null,
        ]);
        assert_eq!(
            restored_value(MountAnswer::Containers, &list),
            json!([
                plain,
                shown("/h/a"),
                shown("/w/a"),
                shown("/h/c"),
                // A stranger's, or another machine's.
                labelled(r#"{"/x/a":"/h/x"}"#),
                labelled("nonsense"),
                {"Labels": null, "Mounts": null},
                null,
            ])
        );
    }

    #[test]
    fn a_label_shows_nothing_that_is_not_ours() {
        let container = json!({
            "Config": {"Labels": {LABEL: r#"{"/etc":"/h/etc","/w/a":"/h/a"}"#}},
            "HostConfig": {"Binds": ["/etc:/etc", "/w/a:/a"]},
            "Mounts": [{"Source": "/etc"}, {"Source": "/w/a"}],
        });
        assert_eq!(
            restored_value(MountAnswer::Container, &container),
            json!({
                "Config": {"Labels": {}},
                "HostConfig": {"Binds": ["/etc:/etc", "/h/a:/a"]},
                "Mounts": [{"Source": "/etc"}, {"Source": "/h/a"}],
            })
        );
        assert_eq!(
            restore(MountAnswer::Container, container.to_string().as_bytes(), &|_, _| false),
            None
        );
        let mut other = container;
        other["Config"]["Labels"][LABEL] = json!(r#"{"/etc":"/h/etc", "/w/a":"/h/a"}"#);
        assert_stays(MountAnswer::Container, &other.to_string());
    }

    #[test]
    fn volumes_show_what_the_client_said() {
        let volume = |device: &str, labels: Value| {
            json!({
                "Name": "v", "Driver": "local", "Mountpoint": "/w/a", "Labels": labels,
                "Options": {"device": device, "o": "bind", "type": "none"},
            })
        };
        let ours = volume("/w/a", json!({LABEL: r#"{"/w/a":"/h/a/../a"}"#, "x": "y"}));
        let shown = volume("/h/a/../a", json!({"x": "y"}));
        let plain = volume("/w/a", Value::Null);
        assert_eq!(restored_value(MountAnswer::Volume, &ours), shown);
        assert_eq!(
            restored_value(
                MountAnswer::Volumes,
                &json!({"Volumes": [plain, ours], "Warnings": [LABEL]})
            ),
            json!({"Volumes": [plain, shown], "Warnings": [LABEL]})
        );
        let container = json!({"Labels": {LABEL: r#"{"/w/a":"/h/a"}"#}, "Mounts": [{"Source": "/w/a"}]});
        let shown_container = json!({"Labels": {}, "Mounts": [{"Source": "/h/a"}]});
        let image = json!({"Labels": {LABEL: r#"{"/w/a":"/h/a"}"#}});
        assert_eq!(
            restored_value(
                MountAnswer::DiskUsage,
                &json!({"Containers": [container], "Volumes": [plain, ours], "Images": [image]})
            ),
            json!({"Containers": [shown_container], "Volumes": [plain, shown], "Images": [image]})
        );
        assert_eq!(
            restored_value(
                MountAnswer::DiskUsage,
                &json!({"ContainerUsage": {"Items": [container], "TotalCount": 1}, "VolumeUsage": {"Items": [ours]}})
            ),
            json!({"ContainerUsage": {"Items": [shown_container], "TotalCount": 1}, "VolumeUsage": {"Items": [shown]}})
        );
        let capital = json!({"Labels": {LABEL: r#"{"/w/a":"/h/a"}"#}, "Options": {"Device": "/w/a"}});
        assert_eq!(
            restored_value(MountAnswer::Volume, &capital),
            json!({"Labels": {}, "Options": {"Device": "/h/a"}})
        );
        let without = json!({"Labels": {LABEL: r#"{"/w/a":"/h/a"}"#}, "Options": null});
        assert_eq!(
            restored_value(MountAnswer::Volume, &without),
            json!({"Labels": {}, "Options": null})
        );
    }

    #[test]
    fn services_and_tasks_show_what_the_client_said() {
        let spec = |service: &Value, container: &Value, path: &str| {
            json!({
                "Name": "s",
                "Labels": service,
                "TaskTemplate": {"ContainerSpec": {
                    "Image": "i",
                    "Labels": container,
                    "Mounts": [{"Type": "bind", "Source": path, "Target": "/w/a"}],
                }},
            })
        };
        let label = |here: &str| json!({LABEL: format!(r#"{{"/w/a":"{here}"}}"#), "x": "y"});
        let rest = json!({"x": "y"});
        let service = json!({
            "ID": "1",
            "Spec": spec(&label("/h/a"), &label("/h/a"), "/w/a"),
            "PreviousSpec": spec(&label("/h/before"), &label("/h/before"), "/w/a"),
        });
        let shown = json!({
            "ID": "1",
            "Spec": spec(&rest, &rest, "/h/a"),
            "PreviousSpec": spec(&rest, &rest, "/h/before"),
        });
        assert_eq!(restored_value(MountAnswer::Service, &service), shown);
        let plain = json!({"ID": "2", "Spec": spec(&json!({}), &Value::Null, "/w/a")});
        assert_eq!(
            restored_value(MountAnswer::Services, &json!([plain, service])),
            json!([plain, shown])
        );
        // Of the two labels, that of the containers counts.
        for (service, container, rests, path) in [
            (label("/h/a"), Value::Null, &Value::Null, "/h/a"),
            (label("/h/a"), label("/h/b"), &rest, "/h/b"),
            (rest.clone(), label("/h/b"), &rest, "/h/b"),
        ] {
            assert_eq!(
                restored_value(
                    MountAnswer::Service,
                    &json!({"Spec": spec(&service, &container, "/w/a")})
                ),
                json!({"Spec": spec(&rest, rests, path)})
            );
        }
        let task = json!({
            "ID": "3",
            "Labels": {},
            "Spec": {"ContainerSpec": {
                "Labels": {LABEL: r#"{"/w/a":"/h/a"}"#},
                "Mounts": [{"Source": "/w/a"}, {"Type": "volume", "VolumeOptions": {
                    "Labels": {LABEL: r#"{"/w/a":"/h/a"}"#, "x": "y"},
                    "DriverConfig": {"Options": {"device": "/w/a", "o": "bind"}},
                }}],
            }},
        });
        // The engine leaves these labels out where there are none.
        let shown = json!({
            "ID": "3",
            "Labels": {},
            "Spec": {"ContainerSpec": {
                "Mounts": [{"Source": "/h/a"}, {"Type": "volume", "VolumeOptions": {
                    "Labels": {"x": "y"},
                    "DriverConfig": {"Options": {"device": "/h/a", "o": "bind"}},
                }}],
            }},
        });
        assert_eq!(restored_value(MountAnswer::Task, &task), shown);
        assert_eq!(
            restored_value(MountAnswer::Tasks, &json!([task, null])),
            json!([shown, null])
        );
    }

    #[test]
    fn what_has_another_form_stays() {
        let label = r#"{"io.dockerutils.mounts":"{\"/w/a\":\"/h/a\"}"}"#;
        let good = format!(r#"{{"Config":{{"Labels":{label}}}}}"#);
        assert_eq!(restored(MountAnswer::Container, &good), r#"{"Config":{"Labels":{}}}"#);
        for body in [
            "",
            LABEL,
            "[]",
            "null",
            &format!("\"{LABEL}\""),
            &format!(r#"{{"Config":{{"Labels":{label}}}"#),
            &format!(r#"{{"Config":{{"Labels":[{label}]}}}}"#),
            &format!(r#"{{"Config":[{label}]}}"#),
            &format!(r#"{{"Labels":{label}}}"#),
            &format!(r#"{{"Config":{{"Labels":{label},"labels":{{}}}}}}"#),
            &format!(r#"{{"Config":{{"Labels":{label}}},"config":{{}}}}"#),
            &format!(r#"{{"Config":{{"Labels":{label}}},"HostConfig":[]}}"#),
            &format!(r#"{{"Config":{{"Labels":{label}}},"Mounts":[],"mounts":[]}}"#),
            r#"{"Config":{"Labels":{"io.dockerutils.mounts":{"/w/a":"/h/a"}}}}"#,
            r#"{"Config":{"Labels":{"x":"io.dockerutils.mounts","IO.dockerutils.mounts":"{\"/w/a\":\"/h/a\"}"}}}"#,
            r#"{"Config":{"Labels":{"io.dockerutils.mounts":"{}"}}}"#,
        ] {
            assert_stays(MountAnswer::Container, body);
        }
        let not_text = good.replace("}}}", r#","a":"?"}}}"#).into_bytes();
        let not_text: Vec<u8> = not_text
            .into_iter()
            .map(|byte| if byte == b'?' { 0xff } else { byte })
            .collect();
        assert_eq!(restore(MountAnswer::Container, &not_text, &is_ours), None);
    }

    #[test]
    fn paths_are_shortened_as_the_engine_does() {
        for (path, short) in [
            ("/", "/"),
            ("//a//b/", "/a/b"),
            ("/a/./b/.", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../a/..", "/"),
            ("/a/...", "/a/..."),
        ] {
            assert_eq!(shortest(path), short, "{path}");
        }
    }

    /// The name of a file.
    const NAME: &str = "[a-z\"\\\\ é\u{1f600}\n,:]{1,6}";

    /// Requests to create a container, with paths of a project in them.
    fn creation() -> impl Strategy<Value = Value> {
        let names = prop::collection::vec(NAME, 0..5);
        let volumes = prop::collection::vec(NAME, 0..3);
        (names, volumes, any::<bool>(), prop::option::of(NAME)).prop_map(|(names, volumes, read_only, label)| {
            let source = |name: &String| format!("/home/ann/{name}");
            let binds: Vec<String> = names
                .iter()
                .filter(|name| !name.contains(':'))
                .map(|name| format!("{}:/t{}", source(name), if read_only { ":ro" } else { "" }))
                .collect();
            let mut mounts: Vec<Value> = names
                .iter()
                .map(|name| json!({"Type": "bind", "Source": source(name), "Target": "/t", "ReadOnly": read_only}))
                .collect();
            mounts.extend(volumes.iter().map(|name| {
                json!({"Type": "volume", "Target": "/v", "VolumeOptions": {"Labels": {"a": name}, "DriverConfig": {
                    "Options": {"type": "none", "o": "bind,ro", "device": source(name)},
                }}})
            }));
            let mut labels = json!({"io.dockerutils.project": "p"});
            if let Some(label) = label {
                labels[label] = json!("/home/ann/x");
            }
            json!({
                "Image": "i", "Labels": labels, "Env": ["A=/home/ann/a"],
                "HostConfig": {"Binds": binds, "Mounts": mounts, "Memory": 1.5},
            })
        })
    }

    /// A path on the dock for each path of the project; without a colon, so that all can be said where they are.
    fn paths(body: &Value) -> BTreeMap<String, String> {
        let sources = sources(MountRequest::Container, body.to_string().as_bytes()).unwrap();
        let sources = sources.into_iter().enumerate();
        sources
            .map(|(index, source)| (source.path, format!("/w/\u{e9} {index}")))
            .collect()
    }

    /// What an engine shows of a container that was created so.
    fn shown(body: &Value) -> Value {
        let mounts = body["HostConfig"]["Mounts"].as_array().unwrap().iter();
        let mounts: Vec<Value> = mounts
            .filter(|mount| mount["Type"] == "bind")
            .map(|mount| json!({"Source": mount["Source"], "Destination": "/t"}))
            .collect();
        json!({
            "Config": {"Labels": body["Labels"], "Env": body["Env"]},
            "HostConfig": body["HostConfig"],
            "Mounts": mounts,
        })
    }

    proptest! {
        #[test]
        fn what_is_translated_is_restored(body in creation()) {
            let paths = paths(&body);
            let translated = translate(MountRequest::Container, body.to_string().as_bytes(), &paths, &BTreeMap::new()).unwrap();
            prop_assert_eq!(translated.is_some(), !paths.is_empty());
            let Some(translated) = translated else { return Ok(()) };
            let sources = sources(MountRequest::Container, &translated).unwrap();
            prop_assert!(sources.iter().all(|source| source.path.starts_with("/w/")), "{:?}", sources);
            let translated: Value = serde_json::from_slice(&translated).unwrap();
            prop_assert_eq!(restored_value(MountAnswer::Container, &shown(&translated)), shown(&body));
        }

        #[test]
        fn an_answer_without_the_label_stays(body in creation()) {
            for kind in [MountAnswer::Container, MountAnswer::Volume, MountAnswer::Service, MountAnswer::DiskUsage] {
                prop_assert_eq!(restore(kind, body.to_string().as_bytes(), &|_, _| true), None);
            }
        }
    }
}
