//! From the tree to the message, by the schema. Notes all problems, not the first.

use std::{collections::HashMap, rc::Rc};

use prost_reflect::{DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, Value};

use super::{
    error::LoadError,
    names::{self, shown},
    scalar,
    tree::{Content, Node},
};

/// Walks one document.
pub(super) struct Walker {
    decimal: Option<ExtensionDescriptor>,
    path: String,
    problems: LoadError,
}

impl Walker {
    pub(super) fn new(decimal: Option<ExtensionDescriptor>) -> Self {
        Self { decimal, path: String::new(), problems: LoadError::default() }
    }

    /// The message that `node` says.
    pub(super) fn load(mut self, of: &MessageDescriptor, node: &Node) -> Result<DynamicMessage, LoadError> {
        let message = self.message(of, node);
        if self.problems.is_empty() { Ok(message) } else { Err(self.problems) }
    }

    fn problem(&mut self, node: &Node, message: impl Into<String>) {
        self.problems.push(node.at, &self.path, message);
    }

    /// Does something at a place below this one.
    fn below<T>(&mut self, place: &str, act: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if !self.path.is_empty() && !place.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(place);
        let result = act(self);
        self.path.truncate(length);
        result
    }

    fn message(&mut self, of: &MessageDescriptor, node: &Node) -> DynamicMessage {
        let mut message = DynamicMessage::new(of.clone());
        let Content::Map(pairs) = &node.content else {
            self.problem(node, format!("must be a map of the fields of {}", of.name()));
            return message;
        };
        let mut seen = HashMap::new();
        let mut chosen = HashMap::new();
        for (key, value) in pairs {
            let Content::Scalar { text: name, .. } = &key.content else {
                self.problem(key, "a field name must be text");
                continue;
            };
            let Some(field) = names::field(of, name) else {
                let reason = names::no_field(of, name);
                self.below(&shown(name), |walker| walker.problem(key, reason));
                continue;
            };
            self.below(field.name(), |walker| {
                if let Some((line, _)) = seen.insert(field.number(), key.at) {
                    walker.problem(key, format!("is in line {line} already"));
                    return;
                }
                if value.is_null() {
                    return;
                }
                if let Some(first) =
                    one_of(&field).and_then(|one| chosen.insert(one, field.name().to_owned()))
                {
                    walker.problem(key, format!("excludes {first}; only one of them may be given"));
                    return;
                }
                if let Some(value) = walker.field(&field, value) {
                    message.set_field(&field, value);
                }
            });
        }
        message
    }

    fn field(&mut self, field: &FieldDescriptor, node: &Node) -> Option<Value> {
        if !field.is_list() {
            return self.value(field, node);
        }
        let Content::List(items) = &node.content else {
            self.problem(node, "must be a list");
            return None;
        };
        Some(Value::List(self.items(field, items)))
    }

    fn items(&mut self, field: &FieldDescriptor, items: &[Rc<Node>]) -> Vec<Value> {
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            values.extend(self.below(&format!("[{index}]"), |walker| {
                if item.is_null() {
                    walker.problem(item, "must not be null");
                    return None;
                }
                walker.value(field, item)
            }));
        }
        values
    }

    fn value(&mut self, field: &FieldDescriptor, node: &Node) -> Option<Value> {
        let kind = field.kind();
        let (text, quoted) = match (&kind, &node.content) {
            (Kind::Message(of), Content::Map(_)) if !is_one_value(of) => {
                return Some(Value::Message(self.message(of, node)));
            }
            (Kind::Message(of), _) if !is_one_value(of) => {
                self.problem(node, format!("must be a map of the fields of {}", of.name()));
                return None;
            }
            (_, Content::Scalar { text, quoted }) => (text.as_str(), *quoted),
            _ => {
                self.problem(node, "must be a single value, not a list or a map");
                return None;
            }
        };
        let value = match &kind {
            Kind::Bool if quoted => Err("must not be quoted: write true or false".to_owned()),
            Kind::Bool => scalar::boolean(text),
            Kind::Uint32 => scalar::uint32(text),
            Kind::Double => scalar::double(text),
            Kind::String if is_decimal(field, self.decimal.as_ref()) => scalar::decimal(text, quoted),
            Kind::String => scalar::string(text, quoted),
            Kind::Enum(of) => scalar::enumeration(of, text),
            Kind::Message(of) if is_timestamp(of) => scalar::timestamp(of, text),
            Kind::Message(of) => scalar::duration(of, text),
            other => Err(format!("fields of type {other:?} can't be written in a document")),
        };
        match value {
            Ok(value) => Some(value),
            Err(message) => {
                self.problem(node, message);
                None
            }
        }
    }
}

/// Whether the field's text is a decimal number, as the schema's option says.
pub(super) fn is_decimal(field: &FieldDescriptor, option: Option<&ExtensionDescriptor>) -> bool {
    option.is_some_and(|option| field.options().get_extension(option).as_bool() == Some(true))
}

/// Whether the message is written as one value.
fn is_one_value(of: &MessageDescriptor) -> bool {
    is_duration(of) || is_timestamp(of)
}

/// Whether the message is written as `2026-12-01T00:00:00Z`.
pub(super) fn is_timestamp(of: &MessageDescriptor) -> bool {
    of.full_name() == "google.protobuf.Timestamp"
}

/// Whether the message is written as `30s`.
pub(super) fn is_duration(of: &MessageDescriptor) -> bool {
    of.full_name() == "google.protobuf.Duration"
}

/// The oneof that a field is in; `optional` ones do not count.
fn one_of(field: &FieldDescriptor) -> Option<String> {
    let one = field.containing_oneof().filter(|one| !one.is_synthetic())?;
    Some(one.name().to_owned())
}

/// Where the value at `path` is, or what it would be in.
pub(super) fn locate(root: &Node, of: &MessageDescriptor, path: &str) -> (usize, usize) {
    let mut node = root;
    let mut at = root.at;
    let mut of = of.clone();
    for step in path.split('.') {
        let (name, index) = step.split_once('[').unwrap_or((step, ""));
        let Content::Map(pairs) = &node.content else { return at };
        let is_it = |key: &Node| match &key.content {
            Content::Scalar { text, .. } => names::field(&of, text).is_some_and(|field| field.name() == name),
            _ => false,
        };
        let Some((key, value)) = pairs.iter().find(|(key, _)| is_it(key)) else { return at };
        (at, node) = (key.at, value);
        if let Ok(index) = index.trim_end_matches(']').parse::<usize>() {
            let Content::List(items) = &value.content else { return at };
            let Some(item) = items.get(index) else { return at };
            (at, node) = (item.at, item);
        }
        match of.get_field_by_name(name).map(|field| field.kind()) {
            Some(Kind::Message(next)) => of = next,
            _ => return at,
        }
    }
    at
}
