//! `spec.instruments` and `use`: named definitions take the place of what names them, on the tree, before types are
//! read.
//!
//! A block such as `detector: {use: id281, efficiency: 80 %}` becomes the definition with the fields beside `use` put
//! over it, block by block; lists and other values are replaced. A part that says a `use` or a `type` of its own (the
//! detector of an arm, say) replaces the definition's part. Arms and whole links can be defined as their parts can.
//! Every value keeps its own place in the file, and remembers where it is used: what is wrong with it later is said at
//! both.

mod merge;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::diagnostic::{COLLECTED_MAX, Diagnostic, Position, quoted};
use crate::document::{LINKS_MAX, Name};
use crate::suggest;
use crate::tree::{Entry, Kind as NodeKind, Node};

/// Name of the field that names a definition.
pub(crate) const USE: &str = "use";
/// Name of the field that holds the definitions.
pub(crate) const INSTRUMENTS: &str = "instruments";
/// Values that definitions may repeat: 4,000 links of two full arms.
const EXPANDED_NODES_MAX: usize = 1_000_000;
/// Definitions that use one another, one below the other.
const CHAIN_MAX: usize = 16;
/// Definitions of one kind.
pub(crate) const DEFINITIONS_MAX: usize = 256;

/// Problems after which no nearest name is looked for.
const SUGGESTED_MAX: usize = 64;

/// What can be defined. The name is that of the field in which it stands, and of its group of definitions.
pub(crate) struct InstrumentKind {
    pub name: &'static str,
    /// Name of its schema.
    pub schema: &'static str,
    /// Fields of it that can be defined themselves.
    pub parts: &'static [&'static str],
    /// A field that lists what can be defined, and the kind of that.
    list: Option<(&'static str, &'static str)>,
}

/// Links, arms, and the fields of both that can be defined.
pub(crate) const KINDS: [InstrumentKind; 15] = [
    InstrumentKind {
        name: "link",
        schema: "Link",
        parts: &["source", "sync", "acquisition", "tracking", "reconciliation", "security", "authentication", "loops"],
        list: Some(("arms", "arm")),
    },
    InstrumentKind {
        name: "arm",
        schema: "Arm",
        parts: &["fibre", "freeSpace", "analyser", "detector", "clock"],
        list: None,
    },
    kind("source", "Source"),
    kind("sync", "Sync"),
    kind("fibre", "Fibre"),
    kind("freeSpace", "FreeSpace"),
    kind("analyser", "Analyser"),
    kind("detector", "Detector"),
    kind("clock", "Clock"),
    kind("acquisition", "Acquisition"),
    kind("tracking", "Tracking"),
    kind("reconciliation", "Reconciliation"),
    kind("security", "Security"),
    kind("authentication", "Authentication"),
    kind("loops", "Loops"),
];

const fn kind(name: &'static str, schema: &'static str) -> InstrumentKind {
    InstrumentKind { name, schema, parts: &[], list: None }
}

fn kind_of(name: &str) -> Option<&'static InstrumentKind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// What was defined, with everything that a definition uses in its place.
pub(crate) struct Definition {
    pub kind: &'static InstrumentKind,
    pub name: String,
    pub node: Node,
}

/// What is left to say of a document whose definitions are in their places.
#[derive(Default)]
pub(crate) struct Expanded {
    pub definitions: Vec<Definition>,
    pub diagnostics: Vec<Diagnostic>,
}

/// Puts definitions into their places. An error is one after which the document is not worth reading.
pub(crate) fn expand(root: &mut Node) -> Result<Expanded, Vec<Diagnostic>> {
    let Some(spec) = root.get_mut("spec") else { return Ok(Expanded::default()) };
    let mut expander = Expander::default();
    if let Some(group) = spec.take(INSTRUMENTS).filter(|group| !is_null(&group.value)) {
        expander.index(group.value);
    }
    for index in 0..expander.definitions.len() {
        expander.resolve(index, 0);
    }
    expander.list(spec, ("links", "link"), Place { path: "spec", inside: None });
    expander.finish()
}

fn is_null(node: &Node) -> bool {
    node.scalar() == Some(Value::Null)
}

/// Where a definition may be named.
#[derive(Clone, Copy)]
struct Place<'p> {
    path: &'p str,
    /// The definition in which this stands, and how many are around it.
    inside: Option<(usize, usize)>,
}

/// A definition on its way into its places.
struct Defined {
    kind: &'static InstrumentKind,
    name: String,
    at: Position,
    node: Node,
    /// Values in it, once everything that it uses is in its place.
    size: usize,
    state: State,
    /// Definitions that it uses, and how many of them are one below the other.
    uses: Vec<usize>,
    depth: usize,
    used: bool,
}

impl Defined {
    fn path(&self) -> String {
        format!("spec.{INSTRUMENTS}.{}.{}", self.kind.name, self.name)
    }

    fn unused(&self) -> Diagnostic {
        let message = format!("the definition \"{}\" is not used", self.name);
        let expected = format!("a {} that says `{USE}: {}`", self.kind.name, self.name);
        Diagnostic::warning(self.at, self.path(), message).expected(expected)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Untouched,
    /// What it uses is being resolved: a definition that is reached again here uses itself.
    Open,
    Done,
    /// It uses what cannot be used, which was said.
    Broken,
}

#[derive(Default)]
struct Expander {
    definitions: Vec<Defined>,
    by_name: BTreeMap<(&'static str, String), usize>,
    /// Definitions that are open, the outermost first.
    open: Vec<usize>,
    expanded_nodes: usize,
    too_large: Option<Diagnostic>,
    diagnostics: Vec<Diagnostic>,
}

impl Expander {
    // === what is defined ===

    fn index(&mut self, groups: Node) {
        let path = format!("spec.{INSTRUMENTS}");
        let known = || KINDS.iter().map(|kind| kind.name);
        let NodeKind::Mapping(entries) = groups.kind else {
            let expected = format!("a block for each kind of instrument: {}", known().collect::<Vec<_>>().join(", "));
            self.note(
                Diagnostic::error(groups.at, path, "the instruments are not a block of fields").expected(expected),
            );
            return;
        };
        for entry in entries {
            let path = format!("{path}.{}", entry.key);
            match kind_of(&entry.key) {
                Some(kind) => self.index_group(kind, entry.value, &path),
                None => {
                    let hint = suggest::nearest(&entry.key, known()).map(|name| format!("did you mean \"{name}\"?"));
                    let message = format!("unknown field {}", quoted(&entry.key));
                    let expected = format!("one of {}", known().collect::<Vec<_>>().join(", "));
                    self.note(Diagnostic::error(entry.key_at, path, message).expected(expected).hint_if(hint));
                }
            }
        }
    }

    fn index_group(&mut self, kind: &'static InstrumentKind, group: Node, path: &str) {
        let at = group.at;
        let NodeKind::Mapping(entries) = group.kind else {
            let message = format!("the definitions of a kind are not a block: {}", kind.name);
            self.note(
                Diagnostic::error(at, path, message).expected("a name and a block of fields for each definition"),
            );
            return;
        };
        if entries.len() > DEFINITIONS_MAX {
            let message = format!("{} entries", entries.len());
            let expected = format!("at most {DEFINITIONS_MAX} entries");
            self.note(Diagnostic::error(at, path, message).expected(expected));
        }
        for Entry { key, key_at, value } in entries.into_iter().take(DEFINITIONS_MAX) {
            let path = format!("{path}.{key}");
            if Name::parse(&key).is_none() {
                let message = format!("{} is not a name", quoted(&key));
                let expected = "a name of lower-case letters, digits and inner hyphens, 1 to 63 characters";
                self.note(Diagnostic::error(key_at, path, message).expected(expected));
                continue;
            }
            if !matches!(value.kind, NodeKind::Mapping(_)) {
                let message = format!("the definition of {} is not a block of fields", quoted(&key));
                self.note(Diagnostic::error(value.at, path, message).expected(format!("the fields of {}", kind.name)));
            }
            self.by_name.insert((kind.name, key.clone()), self.definitions.len());
            let (uses, state) = (Vec::new(), State::Untouched);
            self.definitions.push(Defined {
                kind,
                name: key,
                at: key_at,
                node: value,
                size: 0,
                state,
                uses,
                depth: 1,
                used: false,
            });
        }
    }

    /// Brings what a definition uses into it.
    fn resolve(&mut self, index: usize, outer: usize) {
        if self.definitions[index].state != State::Untouched {
            return;
        }
        self.definitions[index].state = State::Open;
        self.open.push(index);
        let empty = Node::empty(self.definitions[index].at);
        let mut node = std::mem::replace(&mut self.definitions[index].node, empty);
        let kind = self.definitions[index].kind;
        let path = self.definitions[index].path();
        let place = Place { path: &path, inside: Some((index, outer)) };
        let good = matches!(node.kind, NodeKind::Mapping(_)) && self.expand(kind, &mut node, place);
        self.open.pop();
        let defined = &mut self.definitions[index];
        defined.size = node.count();
        defined.node = node;
        defined.state = if good { State::Done } else { State::Broken };
    }

    // === what is used ===

    /// A place where a definition may be named. Where that cannot be, the place is left out of all further checks.
    fn place(&mut self, kind: &'static InstrumentKind, node: &mut Node, place: Place<'_>) {
        if self.too_large.is_some() || !self.expand(kind, node, place) {
            node.origin_mut().broken = true;
        }
    }

    /// The items of a list, each of which may name a definition.
    fn list(&mut self, node: &mut Node, (field, of): (&str, &str), place: Place<'_>) {
        let Some(kind) = kind_of(of) else { return };
        let items = node.get_mut(field).into_iter().flat_map(Node::items_mut);
        // More are refused later, whatever they say.
        for (index, item) in items.take(LINKS_MAX).enumerate() {
            let path = format!("{}.{field}[{index}]", place.path);
            self.place(kind, item, Place { path: &path, ..place });
        }
    }

    /// Puts the definition that a block names under it; false where that cannot be, which was said.
    fn expand(&mut self, kind: &'static InstrumentKind, node: &mut Node, place: Place<'_>) -> bool {
        // Programs write null for what is not set.
        let named = node.take(USE).filter(|named| !is_null(&named.value));
        for part in kind.parts {
            let (Some(part_kind), Some(part)) = (kind_of(part), node.get_mut(part)) else { continue };
            let replaces = part.get(USE).is_some() || part.get("type").is_some();
            let path = format!("{}.{}", place.path, part_kind.name);
            self.place(part_kind, part, Place { path: &path, ..place });
            // Beside a `use` around it, it stands in the place of the definition's own part.
            if replaces {
                part.origin_mut().replaces = true;
            }
        }
        if let Some(list) = kind.list {
            self.list(node, list, place);
        }
        let Some(named) = named else { return true };
        if let NodeKind::Mapping(entries) = &node.kind
            && let Some(own) = entries.iter().find(|entry| entry.key == "type")
        {
            let message = format!("a type beside `{USE}`: the {} has the type of its definition", kind.name);
            let diagnostic = Diagnostic::error(own.key_at, format!("{}.type", place.path), message)
                .expected("fields of the definition that are different here")
                .hint(format!("remove the type, or `{USE}`"));
            let defined = self.named(kind, &named).map(|index| self.definitions[index].at);
            self.note(match defined {
                Some(defined_at) => diagnostic.defined_at(defined_at),
                None => diagnostic,
            });
            return false;
        }
        let Some(index) = self.definition(kind, &named, place) else { return false };
        let at = named.value.at;
        let Defined { name, at: defined_at, node: definition, size, .. } = &self.definitions[index];
        self.expanded_nodes += size;
        if self.expanded_nodes > EXPANDED_NODES_MAX {
            let message = format!("definitions expand to more than {EXPANDED_NODES_MAX} values");
            self.too_large = Some(
                Diagnostic::error(at, place.path, message)
                    .expected("a topology that fits into memory")
                    .hint(format!("the last one was \"{name}\""))
                    .defined_at(*defined_at),
            );
            return false;
        }
        let own = std::mem::replace(node, Node::empty(node.at));
        *node = merge::over(definition, own, name, at, *defined_at);
        true
    }

    /// The definition that a `use` names, whatever is to be said of it.
    fn named(&self, kind: &InstrumentKind, named: &Entry) -> Option<usize> {
        let Some(Value::String(name)) = named.value.scalar() else { return None };
        self.by_name.get(&(kind.name, name)).copied()
    }

    /// The definition that a `use` names, with what it uses in its place.
    fn definition(&mut self, kind: &InstrumentKind, named: &Entry, place: Place<'_>) -> Option<usize> {
        let (at, path) = (named.value.at, format!("{}.{USE}", place.path));
        let Some(Value::String(name)) = named.value.scalar() else {
            let message = format!("`{USE}` names no definition");
            self.note(Diagnostic::error(at, path, message).expected("the name of a definition"));
            return None;
        };
        let Some(index) = self.named(kind, named) else {
            self.note_unknown(kind, &name, at, path);
            return None;
        };
        if let Some((user, outer)) = place.inside {
            self.definitions[user].uses.push(index);
            if self.definitions[index].state == State::Open {
                self.note_cycle(index, at, path);
                return None;
            }
            if outer + 1 >= CHAIN_MAX {
                self.note_chain(index, at, path);
                return None;
            }
            self.resolve(index, outer + 1);
            let depth = self.definitions[index].depth + 1;
            if depth > CHAIN_MAX {
                self.note_chain(index, at, path);
                return None;
            }
            self.definitions[user].depth = self.definitions[user].depth.max(depth);
        } else {
            self.mark_used(index);
        }
        (self.definitions[index].state == State::Done).then_some(index)
    }

    fn mark_used(&mut self, index: usize) {
        let mut waiting = vec![index];
        while let Some(index) = waiting.pop() {
            let defined = &mut self.definitions[index];
            if !std::mem::replace(&mut defined.used, true) {
                waiting.extend(&defined.uses);
            }
        }
    }

    // === what is wrong ===

    fn note(&mut self, diagnostic: Diagnostic) {
        if !self.is_full() {
            self.diagnostics.push(diagnostic);
        }
    }

    fn is_full(&self) -> bool {
        self.diagnostics.len() >= COLLECTED_MAX
    }

    fn note_unknown(&mut self, kind: &InstrumentKind, name: &str, at: Position, path: String) {
        if self.is_full() {
            return;
        }
        let of_kind: Vec<&str> =
            self.definitions.iter().filter(|one| one.kind.name == kind.name).map(|one| one.name.as_str()).collect();
        let expected = match of_kind.as_slice() {
            [] => format!("the name of a definition in spec.{INSTRUMENTS}.{}, where there is none", kind.name),
            names => format!("one of {}", names.iter().take(12).copied().collect::<Vec<_>>().join(", ")),
        };
        let of_another_kind = self.definitions.iter().position(|one| one.name == name);
        // Each costs a comparison with every name.
        let suggests = self.diagnostics.len() < SUGGESTED_MAX;
        let near = suggest::nearest(name, of_kind.iter().copied().filter(|_| suggests)).map(str::to_owned);
        let near = near.and_then(|near| self.by_name.get(&(kind.name, near)).copied());
        let meant = of_another_kind.or(near);
        let message = match of_another_kind.map(|other| self.definitions[other].kind.name) {
            Some(other) => format!("\"{name}\" defines a kind of {other}, not of {}", kind.name),
            None => format!("there is no definition {}", quoted(name)),
        };
        let hint = near.filter(|_| of_another_kind.is_none());
        let hint = hint.map(|near| format!("did you mean \"{}\"?", self.definitions[near].name));
        let mut diagnostic = Diagnostic::error(at, path, message).expected(expected).hint_if(hint);
        if let Some(meant) = meant {
            diagnostic = diagnostic.defined_at(self.definitions[meant].at);
        }
        self.note(diagnostic);
    }

    fn note_cycle(&mut self, index: usize, at: Position, path: String) {
        let from = self.open.iter().position(|open| *open == index).unwrap_or(0);
        let circle = self.open[from..].iter().chain([&index]);
        let names: Vec<&str> = circle.map(|one| self.definitions[*one].name.as_str()).collect();
        let message = format!("the definition \"{}\" uses itself: {}", names[0], names.join(" -> "));
        let diagnostic = Diagnostic::error(at, path, message)
            .expected("definitions that come to an end")
            .defined_at(self.definitions[index].at);
        self.note(diagnostic);
    }

    fn note_chain(&mut self, index: usize, at: Position, path: String) {
        let defined = &self.definitions[index];
        let message =
            format!("more than {CHAIN_MAX} definitions use one another, the last one is \"{}\"", defined.name);
        let diagnostic = Diagnostic::error(at, path, message)
            .expected(format!("at most {CHAIN_MAX}, one below the other"))
            .defined_at(defined.at);
        self.note(diagnostic);
    }

    fn finish(mut self) -> Result<Expanded, Vec<Diagnostic>> {
        if let Some(diagnostic) = self.too_large {
            self.diagnostics.push(diagnostic);
            return Err(self.diagnostics);
        }
        // A slip of the pen leaves the definition that was meant without a use; saying so twice helps nobody.
        let unused = self.definitions.iter().filter(|one| !one.used && self.diagnostics.is_empty());
        let unused: Vec<Diagnostic> = unused.map(Defined::unused).collect();
        self.diagnostics.extend(unused);
        // What is used comes first: what is wrong in it is told there.
        let mut good: Vec<Defined> = self.definitions.into_iter().filter(|one| one.state == State::Done).collect();
        good.sort_by_key(|one| one.depth);
        let definitions =
            good.into_iter().map(|Defined { kind, name, node, .. }| Definition { kind, name, node }).collect();
        Ok(Expanded { definitions, diagnostics: self.diagnostics })
    }
}
