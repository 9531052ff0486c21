//! Import cycles between source files.
//!
//! A file imports another one if it names something that the other file defines, re-exports
//! followed to the definition. A parent module and its descendants are one unit in Rust and may
//! name each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::{SourceFile, is_name};

/// Groups of files that import each other, directly or through other files of the group; each group
/// sorted by path.
pub(crate) fn import_cycles(sources: &[SourceFile]) -> Vec<Vec<String>> {
    let graph = Graph::new(sources);
    let reachable = (0..sources.len()).map(|start| graph.reachable_from(start)).collect::<Vec<_>>();
    let mut groups = BTreeSet::new();
    for start in 0..sources.len() {
        if reachable[start].contains(&start) {
            let group = reachable[start].iter().filter(|other| reachable[**other].contains(&start));
            groups.insert(group.map(|at| sources[*at].path.clone()).collect::<Vec<_>>());
        }
    }
    groups.into_iter().collect()
}

/// One line for each import that ties a group together.
pub(crate) fn imports_within(sources: &[SourceFile], group: &[String]) -> Vec<String> {
    let graph = Graph::new(sources);
    let is_member = |at: usize| group.contains(&sources[at].path);
    let members = (0..sources.len()).filter(|at| is_member(*at));
    members
        .flat_map(|from| {
            let targets = graph.edges[from].iter().filter(|to| is_member(**to));
            targets.map(|to| format!("src/{} -> src/{}", sources[from].path, sources[*to].path)).collect::<Vec<_>>()
        })
        .collect()
}

struct Graph {
    /// For each file, the files that it imports; parents and descendants left out.
    edges: Vec<BTreeSet<usize>>,
}

impl Graph {
    fn new(sources: &[SourceFile]) -> Self {
        let modules = Modules::new(sources);
        let edges = sources.iter().enumerate().map(|(from, source)| {
            let module = source.module_path();
            let imports = source.imported_paths().into_iter().filter(|import| import.path[0] == "crate");
            let targets = imports.filter_map(|import| modules.resolve(&import.path[1..]));
            let is_family = |to: &usize| {
                let other = sources[*to].module_path();
                other.starts_with(&module) || module.starts_with(&other)
            };
            targets.filter(|to| *to != from && !is_family(to)).collect()
        });
        Self { edges: edges.collect() }
    }

    fn reachable_from(&self, start: usize) -> BTreeSet<usize> {
        let (mut found, mut open) = (BTreeSet::new(), vec![start]);
        while let Some(at) = open.pop() {
            open.extend(self.edges[at].iter().filter(|to| found.insert(**to)));
        }
        found
    }
}

/// What each module defines and re-exports.
struct Modules<'a> {
    by_path: BTreeMap<Vec<String>, usize>,
    sources: &'a [SourceFile],
    definitions: Vec<BTreeSet<String>>,
    /// Name and full path of what a module re-exports; the name `*` for a glob.
    reexports: Vec<Vec<(String, Vec<String>)>>,
}

impl<'a> Modules<'a> {
    fn new(sources: &'a [SourceFile]) -> Self {
        Self {
            by_path: sources.iter().enumerate().map(|(at, source)| (source.module_path(), at)).collect(),
            sources,
            definitions: sources.iter().map(definitions).collect(),
            reexports: sources.iter().map(SourceFile::reexports).collect(),
        }
    }

    /// The file that defines what this path names. The path starts below `crate`.
    fn resolve(&self, path: &[String]) -> Option<usize> {
        self.resolve_within(path, 8)
    }

    fn resolve_within(&self, path: &[String], steps: usize) -> Option<usize> {
        let (module, rest) =
            (0..=path.len()).rev().find_map(|length| Some((*self.by_path.get(&path[..length])?, &path[length..])))?;
        let Some(name) = rest.first().filter(|name| *name != "*") else { return Some(module) };
        if self.definitions[module].contains(name) || steps == 0 {
            return Some(module);
        }
        let own_path = self.sources[module].module_path();
        let is_real = |target: &[String]| target != path && target[..] != own_path[..];
        for (exported, target) in &self.reexports[module] {
            if exported == name && is_real(target) {
                return self.resolve_within(target, steps - 1);
            }
        }
        for (_, target) in self.reexports[module].iter().filter(|(exported, _)| exported == "*") {
            let through = [&target[..target.len() - 1], &[name.clone()][..]].concat();
            if let Some(found) = self.resolve_within(&through, steps - 1)
                && self.definitions[found].contains(name)
            {
                return Some(found);
            }
        }
        Some(module)
    }
}

/// The names of the items that a file defines, at any depth.
fn definitions(source: &SourceFile) -> BTreeSet<String> {
    const KEYWORDS: [&str; 8] = ["struct", "enum", "trait", "fn", "type", "const", "static", "union"];
    let pairs = source.tokens.windows(2).filter(|pair| KEYWORDS.contains(&pair[0].text.as_str()));
    pairs.map(|pair| pair[1].text.clone()).filter(|name| is_name(name)).collect()
}

#[test]
fn import_cycle_is_detected_through_reexports_and_other_files() {
    let parse =
        |files: &[(&str, &str)]| files.iter().map(|(path, text)| SourceFile::parse(path, text)).collect::<Vec<_>>();
    let cyclic = parse(&[
        ("app/mod.rs", "mod a; mod b; mod c; pub use a::A; pub use b::*;"),
        ("app/a.rs", "use crate::app::B; pub struct A;"),
        ("app/b.rs", "use super::c::C; pub struct B;"),
        ("app/c.rs", "fn f(a: crate::app::A) {} pub struct C;"),
    ]);
    let [group] = &import_cycles(&cyclic)[..] else { panic!("{:?}", import_cycles(&cyclic)) };
    assert_eq!(group, &["app/a.rs", "app/b.rs", "app/c.rs"]);
    assert_eq!(imports_within(&cyclic, group).len(), 3);

    let acyclic = parse(&[
        ("app/mod.rs", "mod a; mod b; pub use a::A; pub struct Service;"),
        ("app/a.rs", "use crate::app::{b::B, Service}; pub struct A;"),
        ("app/b.rs", "use crate::app::Service; pub struct B;\n#[cfg(test)] mod tests { use crate::app::A; }"),
        ("app/b/inner.rs", "use super::B; use crate::app::Service;"),
    ]);
    assert_eq!(import_cycles(&acyclic), Vec::<Vec<String>>::new());
}
