//! What the types cannot say: names that must exist, values that must fit each other.

mod budget;
mod counts;
mod entangled;
mod instruments;
mod keys;
mod links;
mod pacing;
pub(crate) mod paths;
mod prepared;
mod sites;
mod space;
mod twin_field;

use crate::diagnostic::{Diagnostic, Severity};
use crate::document::{Fidelity, Spec, Topology};
use crate::quantity::Duration;
use crate::structure::Places;

/// Every problem across fields. Values that stand in for bad ones are left alone.
pub(crate) fn check(topology: &Topology, places: &Places) -> Vec<Diagnostic> {
    let mut report = Report { places, diagnostics: Vec::new() };
    sites::check(&topology.spec, &mut report);
    links::check(&topology.spec, &mut report);
    keys::check(&topology.spec, &mut report);
    paths::check(&topology.spec, &mut report);
    space::check(&topology.spec, &mut report);
    counts::check(&topology.spec, &mut report);
    budget::check(&topology.spec, &mut report);
    pacing::check(&topology.spec, &mut report);
    report.diagnostics
}

/// What of a document that is good by itself is wrong where all of its links have this fidelity.
pub(crate) fn check_at(topology: &Topology, fidelity: Fidelity) -> Vec<Diagnostic> {
    let mut topology = topology.clone();
    topology.spec.links.iter_mut().for_each(|link| link.fidelity = Some(fidelity));
    check(&topology, &Places::default())
}

/// The epoch of a link, as checks of the link need it.
struct Epoch {
    length: Duration,
    /// Where it is said.
    path: String,
    /// How people call it there.
    field: &'static str,
    /// Whether the light is clicks, which make announcements of each epoch and need clocks that are searched and tracked.
    clicks: bool,
}

impl Epoch {
    fn of(spec: &Spec, index: usize) -> Self {
        let link = &spec.links[index];
        let clicks = spec.fidelity(link) == Fidelity::Tags;
        let length = spec.epoch(link);
        match link.epoch {
            Some(_) => Self { length, path: format!("spec.links[{index}].epoch"), field: "epoch", clicks },
            None => Self { length, path: "spec.run.epoch".to_owned(), field: "run.epoch", clicks },
        }
    }
}

struct Report<'a> {
    places: &'a Places,
    diagnostics: Vec<Diagnostic>,
}

/// One finding about the value at `path`.
pub(crate) struct Finding {
    severity: Severity,
    path: String,
    message: String,
    expected: String,
    hint: Option<String>,
}

impl Finding {
    pub(crate) fn error(path: impl Into<String>, message: impl Into<String>, expected: impl Into<String>) -> Self {
        let (path, message, expected) = (path.into(), message.into(), expected.into());
        Finding { severity: Severity::Error, path, message, expected, hint: None }
    }

    fn warning(path: impl Into<String>, message: impl Into<String>, expected: impl Into<String>) -> Self {
        Finding { severity: Severity::Warning, ..Self::error(path, message, expected) }
    }

    /// The same of a block at this path, of which the finding's path is a part.
    pub(crate) fn below(self, path: &str) -> Self {
        Finding { path: format!("{path}.{}", self.path), ..self }
    }

    pub(crate) fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

impl Report<'_> {
    /// Adds a finding, unless it or one of the values that it depends on is a stand-in.
    fn add(&mut self, finding: Finding, depends_on: &[&str]) {
        let stand_in = |path: &str| self.places.is_replaced(path);
        if stand_in(&finding.path) || depends_on.iter().any(|path| stand_in(path)) {
            return;
        }
        let place = self.places.place(&finding.path);
        let mut diagnostic = Diagnostic::error(place.at, finding.path, finding.message).expected(finding.expected);
        diagnostic.severity = finding.severity;
        diagnostic.hint = finding.hint.map(Into::into);
        self.diagnostics.push(match place.used_at {
            Some(used_at) => diagnostic.used_at(used_at),
            None => diagnostic,
        });
    }

    /// Line of a path, for hints.
    fn line(&self, path: &str) -> usize {
        self.places.of(path).line
    }
}
