//! What two configurations differ in.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    shape::{self, Name, Shape},
    text::flow,
};
use crate::admin::v1::{Change, ChangeKind, Config};

/// Characters of a value that are shown; a whole provider can be megabytes.
const VALUE_MAX_CHARS: usize = 512;

/// What changes from `old` to `new`, in the order of the document. Lists are matched
/// by name, targets by deployment, tiers by position. The order of providers,
/// deployments, virtual models and keys means nothing and is not compared.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(&shape::of_config(old), &shape::of_config(new), "", &mut changes);
    changes
}

/// The changes as text, one a line: `+` added, `-` removed, `~` modified.
pub fn render_diff(changes: &[Change]) -> String {
    let mut out = String::new();
    for change in changes {
        let line = match change.kind() {
            ChangeKind::Added => format!("+ {}: {}\n", change.path, change.after),
            ChangeKind::Removed => format!("- {}: {}\n", change.path, change.before),
            ChangeKind::Modified | ChangeKind::Unspecified => {
                format!("~ {}: {} -> {}\n", change.path, change.before, change.after)
            }
        };
        out.push_str(&line);
    }
    out
}

fn compare(old: &Shape, new: &Shape, path: &str, changes: &mut Vec<Change>) {
    match (old, new) {
        (Shape::Map(before), Shape::Map(after)) => {
            let names: BTreeSet<&Name> = before.iter().chain(after).map(|(name, _)| name).collect();
            for name in names {
                let name = name.snake.as_str();
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                either(old.get(name), new.get(name), &path, changes);
            }
        }
        (Shape::List(before), Shape::List(after)) => compare_lists(before, after, path, changes),
        _ if old == new => {}
        _ => push(ChangeKind::Modified, path, Some(old), Some(new), changes),
    }
}

fn either(old: Option<&Shape>, new: Option<&Shape>, path: &str, changes: &mut Vec<Change>) {
    /// Stands for an absent list, so that what is in it is named one by one.
    static NONE: Shape = Shape::List(Vec::new());
    let named = |one: &Shape| matches!(one, Shape::List(items) if key_of(items).is_some());
    match (old, new) {
        (Some(old), Some(new)) => compare(old, new, path, changes),
        (None, Some(new)) if named(new) => compare(&NONE, new, path, changes),
        (Some(old), None) if named(old) => compare(old, &NONE, path, changes),
        (None, Some(_)) => push(ChangeKind::Added, path, old, new, changes),
        (Some(_), None) => push(ChangeKind::Removed, path, old, new, changes),
        (None, None) => {}
    }
}

fn push(
    kind: ChangeKind,
    path: &str,
    before: Option<&Shape>,
    after: Option<&Shape>,
    changes: &mut Vec<Change>,
) {
    let text = |value: Option<&Shape>| value.map(|one| short(&flow(one))).unwrap_or_default();
    changes.push(Change {
        kind: kind.into(),
        path: path.to_owned(),
        before: text(before),
        after: text(after),
    });
}

fn short(text: &str) -> String {
    match text.char_indices().nth(VALUE_MAX_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// What names the elements of a list. None: their place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Name,
    Deployment,
    Place,
}

/// How elements of a list of messages are matched. None: it holds plain values.
fn key_of(items: &[Shape]) -> Option<Key> {
    let first = items.iter().find(|one| matches!(one, Shape::Map(_)))?;
    Some(if first.get("name").is_some() {
        Key::Name
    } else if first.get("deployment").is_some() {
        Key::Deployment
    } else {
        Key::Place
    })
}

fn compare_lists(before: &[Shape], after: &[Shape], path: &str, changes: &mut Vec<Change>) {
    let Some(key) = key_of(before).or_else(|| key_of(after)) else {
        if before != after {
            let whole = |items: &[Shape]| Shape::List(items.to_vec());
            push(ChangeKind::Modified, path, Some(&whole(before)), Some(&whole(after)), changes);
        }
        return;
    };
    if key == Key::Place {
        for index in 0..before.len().max(after.len()) {
            let path = format!("{path}[{index}]");
            either(before.get(index), after.get(index), &path, changes);
        }
        return;
    }
    let before = keyed(before, key);
    let after = keyed(after, key);
    let old: BTreeMap<_, _> = before.iter().copied().collect();
    let new: BTreeMap<_, _> = after.iter().copied().collect();
    for (name, one) in &before {
        either(Some(one), new.get(name).copied(), &format!("{path}[{name}]"), changes);
    }
    for (name, one) in after.iter().filter(|(name, _)| !old.contains_key(name)) {
        either(None, Some(one), &format!("{path}[{name}]"), changes);
    }
    if key == Key::Deployment {
        let stayed = |names: &[(&str, &Shape)]| -> Vec<Shape> {
            let names = names.iter().map(|(name, _)| *name);
            let both = names.filter(|name| old.contains_key(name) && new.contains_key(name));
            both.map(|name| Shape::Text(name.to_owned())).collect()
        };
        let (was, is) = (Shape::List(stayed(&before)), Shape::List(stayed(&after)));
        if was != is {
            push(ChangeKind::Modified, path, Some(&was), Some(&is), changes);
        }
    }
}

fn keyed(items: &[Shape], key: Key) -> Vec<(&str, &Shape)> {
    let field = if key == Key::Name { "name" } else { "deployment" };
    items.iter().map(|one| (one.text(field).unwrap_or_default(), one)).collect()
}
