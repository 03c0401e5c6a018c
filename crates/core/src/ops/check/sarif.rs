//! Findings as SARIF 2.1.0 (OASIS), which code hosts show beside the lines.

use serde_json::{Value, json};

use super::finding::Severity;
use super::report::{Report, ReportedFinding};
use super::rules::{Rule, rules};

/// The page with an entry for each rule.
const PAGE: &str = "https://github.com/dockerutils/dockerutils/blob/main/docs/checks.md";

const fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Serious => "error",
    }
}

/// The document.
pub(super) fn document(reports: &[Report]) -> Value {
    let known: Vec<&Rule> = rules().collect();
    let described = known.iter().map(|rule| {
        json!({
            "id": rule.name,
            "shortDescription": { "text": rule.title.replace('`', "") },
            "fullDescription": { "text": rule.why.replace('`', "") },
            "helpUri": format!("{PAGE}#{}", rule.name.to_lowercase()),
            "defaultConfiguration": { "level": level(rule.severity) },
        })
    });
    let mut results = Vec::new();
    for report in reports {
        results.extend(report.findings.iter().map(|finding| result(finding, &known)));
        if let Some(fault) = &report.error {
            results.push(json!({
                "level": "error",
                "message": { "text": fault.message },
                "locations": [location(&report.dockerfile, fault.line, fault.line)],
            }));
        }
    }
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "build-image",
                "informationUri": PAGE,
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": described.collect::<Vec<_>>(),
            } },
            "originalUriBaseIds": { "PROJECT": { "description": { "text": "The root of the project." } } },
            "results": results,
        }],
    })
}

fn result(finding: &ReportedFinding, known: &[&Rule]) -> Value {
    let advice = finding
        .advice
        .as_deref()
        .map(|advice| format!(" ({advice})"))
        .unwrap_or_default();
    let mut result = json!({
        "ruleId": finding.rule,
        "level": level(finding.severity),
        "message": { "text": format!("{}: {}{advice}", finding.message, finding.costs) },
        "locations": [location(&finding.file, finding.line, finding.end_line)],
    });
    let index = known.iter().position(|rule| rule.name == finding.rule);
    if let (Some(index), Some(fields)) = (index, result.as_object_mut()) {
        fields.insert("ruleIndex".to_owned(), index.into());
    }
    if let (Some(instead), Some(fields)) = (&finding.instead, result.as_object_mut()) {
        let text = if instead.text.is_empty() {
            String::new()
        } else {
            format!("{}{}", instead.text, instead.line_end)
        };
        let fix = json!([{
            "description": { "text": "Write these lines instead." },
            "artifactChanges": [{
                "artifactLocation": { "uri": address(&finding.file), "uriBaseId": "PROJECT" },
                "replacements": [{
                    "deletedRegion": { "startLine": instead.first, "startColumn": 1, "endLine": instead.last + 1, "endColumn": 1 },
                    "insertedContent": { "text": text },
                }],
            }],
        }]);
        fields.insert("fixes".to_owned(), fix);
    }
    result
}

fn location(file: &str, line: usize, end: usize) -> Value {
    json!({ "physicalLocation": {
        "artifactLocation": { "uri": address(file), "uriBaseId": "PROJECT" },
        "region": { "startLine": line, "endLine": end },
    } })
}

/// A relative path as a URI.
fn address(path: &str) -> String {
    let mut address = String::new();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => address.push(byte.into()),
            _ => address.push_str(&format!("%{byte:02X}")),
        }
    }
    address
}
