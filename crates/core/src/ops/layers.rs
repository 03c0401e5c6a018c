//! What an image is made of: each layer with the Dockerfile's line that made it, its size, and what of it is there in
//! vain (deleted or written again by a later layer, or somebody's cache), with the line of advice.

mod advice;
mod waste;

use std::time::Instant;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http_body_util::Empty;
use hyper::{Method, Request};
use serde::Serialize;
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::config::project::Project;
use crate::context::Context;
use crate::docker::build::dockerfile::{Dockerfile, Instruction};
use crate::docker::connect::engine::refusal;
use crate::docker::images::image;
use crate::docker::images::image_archive::{self, ArchivedImage, Step};
use crate::error::{Error, ExitStatus, Result};
use crate::hint;
use crate::ops::build::{BuildArgs, BuildPlan, PlanStep};
use crate::ops::run_records::connect_and_remind;
use crate::output::progress::steps::{Ended, Steps};
use crate::output::table::{Align, Table};
use crate::output::{Printer, counted, size, visible};
use crate::project_file;
use waste::Waste;

/// Waste below this size gets no line of its own, but is in the sums.
const WORTH_A_LINE: u64 = 64 * 1024;
/// A longer instruction is shortened, unless everything is asked for.
const INSTRUCTION: usize = 72;

/// An image taken apart.
#[derive(Debug, Serialize)]
struct LayersReport {
    image: String,
    id: String,
    /// Bytes of all files of all layers.
    size: u64,
    /// Bytes of these that are wasted.
    in_vain: u64,
    /// Lowest first.
    layers: Vec<Layer>,
}

#[derive(Debug, Serialize)]
struct Layer {
    /// From 1.
    number: usize,
    /// The line of the Dockerfile; `None` for a layer of the base image.
    line: Option<usize>,
    /// The instruction: the Dockerfile's text, else what the builder wrote down.
    instruction: String,
    /// Bytes of its files.
    size: u64,
    /// Of the whole image's, from 0 to 1.
    share: f64,
    /// Largest first.
    in_vain: Vec<InVain>,
}

#[derive(Debug, Serialize)]
struct InVain {
    path: String,
    size: u64,
    why: String,
    advice: String,
}

/// Takes the image of an image type apart and prints what it is made of.
///
/// # Errors
/// An image that is not built yet, or an archive of it that the engine breaks off.
pub fn show(context: &Context, args: &BuildArgs) -> Result<ExitStatus> {
    let project = Project::find(&context.working_dir, &context.env)?;
    if matches!(args.image.as_str(), "all" | "clean") {
        return Err(Error::usage(format!("--layers takes one image, not {}", args.image))
            .hint(hint!("it has {names}"; names = project.image_types().join(", "))));
    }
    let plan = BuildPlan::new(&project, args, &context.env)?;
    plan.notes.iter().for_each(|note| context.printer.warning(note));
    let Some(image) = plan.images.iter().find(|image| image.image == args.image) else {
        return Err(Error::failed(format!("{} is not built by this project", args.image)));
    };
    let reference = image.designation.to_string();
    let save = [format!(
        "{}docker save {}",
        context.docker_prefix()?,
        crate::shell::quote(&reference)
    )];
    if context.global.dry_run {
        context.printer.plan(&save)?;
        return Ok(ExitStatus::SUCCESS);
    }
    // The last build is the image itself; a builder stage may come before it.
    let request = image.steps.iter().rev().find_map(|step| match step {
        PlanStep::Build { request, .. } => Some(request),
        PlanStep::Script { .. } => None,
    });
    let options = request.map(|request| request.options.clone()).unwrap_or_default();
    let dockerfile = match request {
        Some(request) => request.dockerfile.clone(),
        None => project.at(&project.dockerfile(&args.image)?),
    };
    // The image may be shown by its history alone.
    let text = project_file::read(&dockerfile).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let steps = Dockerfile::parse(&text, &options).steps(&text, options.target.as_deref());
    save.iter().for_each(|line| context.printer.note(line));
    let (id, archived) = context.block_on(read(context, &reference, &args.image))?;
    let report = report(reference, id, &archived, &steps);
    if context.printer.json() {
        context.printer.result_json(&report)?;
    } else {
        print(&context.printer, &report, context.global.verbose);
    }
    Ok(ExitStatus::SUCCESS)
}

/// Streams the image out of the engine, and keeps what its layers change.
async fn read(context: &Context, reference: &str, image: &str) -> Result<(String, ArchivedImage)> {
    let engine = connect_and_remind(context).await?;
    let Some(facts) = image::find(&engine, reference).await? else {
        return Err(Error::failed(format!(
            "there is no image {reference} on the engine at {}",
            engine.choice().endpoint
        ))
        .hint(hint!("build it first: build-image {}", image)));
    };
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("names", reference)
        .finish();
    let request = Request::builder()
        .method(Method::GET)
        .uri(format!("/images/get?{query}"))
        .body(Empty::<Bytes>::new())
        .map_err(|cause| Error::failed(format!("{reference} can't be requested")).because(cause))?;
    // An old engine writes all of the image down before it sends the first byte.
    let response = engine.worked(engine.request(request)).await?;
    if !response.status().is_success() {
        return Err(Error::failed(format!("{reference} can't be read")).because(refusal(response).await));
    }
    let mut progress = Steps::new(&context.printer, false).of("Reading");
    let title = format!("reading the layers of {reference}");
    progress.running(reference, &title);
    let began = Instant::now();
    let body = engine.chunks(response).map_err(std::io::Error::other);
    let reader = SyncIoBridge::new(StreamReader::new(body));
    let reading = tokio::task::spawn_blocking(move || {
        let mut reader = std::io::BufReader::with_capacity(1 << 20, reader);
        let image = image_archive::read(&mut reader)?;
        // An archive ends with blocks of zeros, and its stream after them.
        std::io::copy(&mut reader, &mut std::io::sink())?;
        Ok::<_, image_archive::ImageArchiveError>(image)
    });
    let archived = match reading.await {
        Ok(Ok(archived)) => archived,
        Ok(Err(cause)) => {
            progress.ended(reference, &title, Ended::Failed);
            return Err(Error::failed(format!("the layers of {reference} can't be read")).because(cause));
        }
        Err(cause) => return Err(Error::failed(format!("the layers of {reference} can't be read")).because(cause)),
    };
    progress.ended(reference, &title, Ended::Done(began.elapsed().as_secs_f64()));
    progress.finish();
    Ok((facts.id, archived))
}

fn report(image: String, id: String, archived: &ArchivedImage, steps: &[Instruction]) -> LayersReport {
    let layers = waste::weigh(&archived.layers);
    let total = layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
    let placed = place(&archived.history, archived.layers.len(), steps);
    let line_of = |layer: usize| placed.get(layer).and_then(|place| place.line);
    let in_vain = layers
        .iter()
        .flat_map(|layer| &layer.wasted)
        .map(|waste| waste.size)
        .fold(0, u64::saturating_add);
    let layers = layers
        .iter()
        .enumerate()
        .map(|(index, layer)| {
            let place = placed.get(index).cloned().unwrap_or_default();
            let explain = |waste: &Waste| InVain {
                path: format!("/{}", String::from_utf8_lossy(&waste.path)),
                size: waste.size,
                why: advice::why(waste, &line_of),
                advice: advice::advice(waste, place.line, &line_of),
            };
            Layer {
                number: index + 1,
                line: place.line,
                instruction: place.instruction,
                size: layer.size,
                share: if total == 0 {
                    0.0
                } else {
                    layer.size as f64 / total as f64
                },
                in_vain: layer
                    .wasted
                    .iter()
                    .filter(|waste| waste.size >= WORTH_A_LINE)
                    .map(explain)
                    .collect(),
            }
        })
        .collect();
    LayersReport {
        image,
        id,
        size: total,
        in_vain,
        layers,
    }
}

/// Where a layer comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LayerOrigin {
    line: Option<usize>,
    instruction: String,
}

/// Finds the instruction of each layer. History and Dockerfile are compared from their ends: what stands before the
/// Dockerfile's first instruction came with the base image.
fn place(history: &[Step], layers: usize, steps: &[Instruction]) -> Vec<LayerOrigin> {
    let mut places = Vec::new();
    let mut left = steps.iter().rev().peekable();
    for step in history.iter().rev() {
        let keyword = keyword(&step.created_by);
        let found = left.next_if(|instruction| instruction.keyword() == keyword);
        if found.is_none() {
            // After the first mismatch, nothing fits.
            left = [].iter().rev().peekable();
        }
        if !step.empty_layer {
            places.push(LayerOrigin {
                line: found.map(|instruction| instruction.line),
                instruction: found.map_or_else(|| plain(&step.created_by), |instruction| instruction.text.clone()),
            });
        }
    }
    // An image that was imported, or squashed, has layers without a history.
    places.resize(layers, LayerOrigin::default());
    places.reverse();
    places
}

/// The instruction's keyword in what a builder wrote down. BuildKit writes the instruction, the classic builder what the
/// shell was told, with `#(nop)` where that is nothing.
fn keyword(created_by: &str) -> String {
    const NOTHING: &str = "#(nop)";
    let text = match created_by.split_once(NOTHING) {
        Some((_, instruction)) => instruction,
        None if created_by.starts_with('/') || created_by.starts_with('|') => return "RUN".to_owned(),
        None => created_by,
    };
    text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase()
}

/// The builder's record of an instruction, in readable form.
fn plain(created_by: &str) -> String {
    let text = created_by.strip_suffix("# buildkit").unwrap_or(created_by);
    let text = match text.split_once("#(nop)") {
        Some((_, instruction)) => instruction,
        None => text.strip_prefix("RUN ").unwrap_or(text),
    };
    let text = text.strip_prefix("/bin/sh -c ").unwrap_or(text).trim();
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ")
}

fn print(printer: &Printer, report: &LayersReport, whole: bool) {
    let mut table = Table::new([
        ("LAYER", Align::Right),
        ("SIZE", Align::Right),
        ("SHARE", Align::Right),
        ("LINE", Align::Right),
        ("INSTRUCTION", Align::Left),
    ]);
    for layer in &report.layers {
        let instruction = match layer.instruction.as_str() {
            "" => "(without a history)".to_owned(),
            text => visible(text),
        };
        table.row([
            layer.number.to_string(),
            size(layer.size),
            format!("{:.1} %", layer.share * 100.0),
            layer.line.map_or_else(|| "base".to_owned(), |line| line.to_string()),
            if whole { instruction } else { cut(&instruction) },
        ]);
    }
    let mut rows = table.lines().into_iter();
    if let Some(header) = rows.next() {
        printer.result(&header);
    }
    for (row, layer) in rows.zip(&report.layers) {
        printer.result(&row);
        for waste in &layer.in_vain {
            printer.result(&format!(
                "       {} in vain: {}: {}",
                size(waste.size),
                visible(&waste.path),
                waste.why
            ));
            printer.result(&format!("         {}", waste.advice));
        }
    }
    let share = if report.size == 0 {
        0.0
    } else {
        report.in_vain as f64 / report.size as f64 * 100.0
    };
    printer.result(&format!(
        "{}: {} in {}, {} of it ({share:.1} %) in vain",
        report.image,
        size(report.size),
        counted(report.layers.len(), "layer"),
        size(report.in_vain)
    ));
}

fn cut(text: &str) -> String {
    if text.chars().count() <= INSTRUCTION {
        return text.to_owned();
    }
    text.chars().take(INSTRUCTION - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::options::build_options::BuildOptions;

    fn step(created_by: &str, empty_layer: bool) -> Step {
        Step {
            created_by: created_by.to_owned(),
            empty_layer,
        }
    }

    #[test]
    fn layers_find_the_lines_of_either_builder() {
        let text = "FROM base\nENV A=1\nRUN apt-get update && \\\n  apt-get install x\nCOPY . .\nCMD [\"x\"]\n";
        let steps = Dockerfile::parse(text, &BuildOptions::default()).steps(text, None);
        let buildkit = [
            step("/bin/sh -c #(nop) ADD file:1 in / ", false),
            step("ENV A=1", true),
            step("RUN /bin/sh -c apt-get update &&   apt-get install x # buildkit", false),
            step("COPY . . # buildkit", false),
            step("CMD [\"x\"]", true),
        ];
        let classic = [
            step("/bin/sh -c #(nop) ADD file:1 in / ", false),
            step("/bin/sh -c #(nop)  ENV A=1", true),
            step("|1 B=2 /bin/sh -c apt-get update &&   apt-get install x", false),
            step("/bin/sh -c #(nop) COPY dir:1 in . ", false),
            step("/bin/sh -c #(nop)  CMD [\"x\"]", true),
        ];
        for history in [buildkit, classic] {
            let places = place(&history, 3, &steps);
            let lines: Vec<_> = places.iter().map(|place| place.line).collect();
            assert_eq!(lines, [None, Some(3), Some(5)]);
            assert_eq!(places[0].instruction, "ADD file:1 in /");
            assert_eq!(places[1].instruction, "RUN apt-get update && apt-get install x");
        }
    }

    #[test]
    fn a_history_that_does_not_fit_has_no_lines() {
        let text = "FROM base\nRUN a\nCOPY b c\n";
        let steps = Dockerfile::parse(text, &BuildOptions::default()).steps(text, None);
        let places = place(
            &[step("RUN x", false), step("USER y", true), step("COPY b c", false)],
            3,
            &steps,
        );
        let lines: Vec<_> = places.iter().map(|place| place.line).collect();
        assert_eq!(lines, [None, None, Some(3)]);
    }

    #[test]
    fn long_instructions_are_cut_at_a_character() {
        assert_eq!(cut(&"é".repeat(INSTRUCTION)).chars().count(), INSTRUCTION);
        assert!(cut(&"é".repeat(INSTRUCTION + 1)).ends_with('…'));
    }
}
