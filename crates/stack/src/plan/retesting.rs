//! Whether what is there is tested again: its tests changed, or some of them did not end well, or never ran.

use super::{Judged, PlanReason, RemoteImage, Retests, changed};
use crate::pending_tests;
use crate::suites::{BASIC_TESTS, COMMON_TESTS, CONFTEST, INTEGRATION_TESTS, TestKind, WORKFLOW_TESTS, has_tests};
use crate::verdicts::SaidOfTests;

impl Judged<'_> {
    /// Whether what is there, or is copied, is tested again; adds the reasons, and what is odd about its verdicts.
    pub(super) fn is_retested(
        &self,
        image: &RemoteImage,
        inputs: &str,
        reasons: &mut Vec<PlanReason>,
        notes: &mut Vec<String>,
    ) -> bool {
        if self.facts.retests == Retests::None {
            return false;
        }
        let said = self.said(image);
        let odd = said.iter().flat_map(|said| &said.notes);
        notes.extend(odd.map(|note| format!("{}: {note}", self.target.label(self.facts.spec))));
        let before = reasons.len();
        reasons.extend(self.tests_changed());
        reasons.extend(self.tests_unfinished(image, inputs));
        reasons.len() > before
    }

    /// What the registry says of the image's tests, if that counts.
    fn said<'i>(&self, image: &'i RemoteImage) -> Option<&'i SaidOfTests> {
        let counts = self.facts.retests == Retests::Unfinished;
        image.tests.as_ref().filter(|_| counts)
    }

    /// Whether a path in the image's directory is of its tests.
    pub(super) fn is_test(&self, path: &str) -> bool {
        let first = path.split('/').next().unwrap_or_default();
        let has_integration = self
            .facts
            .spec
            .image(&self.target.name)
            .is_some_and(|image| image.integration_tests);
        path.contains('/')
            && ([BASIC_TESTS, WORKFLOW_TESTS].contains(&first) || (has_integration && first == INTEGRATION_TESTS))
    }

    /// The reason, if tests of the image with these inputs are still to be ended: they failed, or nothing is said of them. A build
    /// that was killed after its push says nothing, and neither do those that were told to test nothing.
    fn tests_unfinished(&self, image: &RemoteImage, inputs: &str) -> Option<PlanReason> {
        let (mut unknown, mut failed) = (Vec::new(), Vec::new());
        let folder = self.facts.graph.images.get(self.target.image);
        if let (Some(folder), Some(said)) = (folder, self.said(image)) {
            let has = |kind: &TestKind| has_tests(self.facts.spec, &folder.name, &folder.directory, *kind);
            for kind in TestKind::OF_BUILDS.into_iter().filter(has) {
                match said.passed.get(&kind) {
                    None => unknown.push(kind),
                    Some(false) => failed.push(kind),
                    Some(true) => {}
                }
            }
        }
        let key = pending_tests::key(&self.target.designation.name, inputs);
        let is_unfinished = !unknown.is_empty() || !failed.is_empty() || self.facts.untested.contains(&key);
        is_unfinished.then_some(PlanReason::TestsUnfinished { unknown, failed })
    }

    /// The reason, if tests of the image changed.
    fn tests_changed(&self) -> Option<PlanReason> {
        let ignored = &self.facts.change_ignore.change_ignore;
        let files = changed(self.facts.history, |path| {
            let first = path.split('/').next().unwrap_or_default();
            let is_common = [COMMON_TESTS, CONFTEST].contains(&first);
            !ignored.iter().any(|name| name == first)
                && (is_common || self.inside(path).is_some_and(|path| self.is_test(path)))
        });
        (!files.is_empty()).then_some(PlanReason::TestsChanged { files })
    }
}
