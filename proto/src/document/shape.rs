//! A configuration as ordered, named values: what is written and compared. Fields are
//! in the order of their numbers; absent ones and output fields are left out.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage, Value};
use prost_types::Timestamp;

use super::{
    schema,
    walk::{is_decimal, is_duration, is_timestamp},
};
use crate::admin::v1::Config;

/// Fields that are computed, never configured.
const OUTPUT: [&str; 1] = ["etag"];

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    /// Text.
    Text(String),
    /// Text that no reader may take for a number.
    Decimal(String),
    /// A number, a boolean, a duration or an enum value, in canonical form.
    Word(String),
    List(Vec<Shape>),
    Map(Vec<(Name, Shape)>),
}

/// A field's name in both spellings, behind its number: the order of fields.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) number: u32,
    pub(super) snake: String,
    pub(super) camel: String,
}

impl Shape {
    /// The text field called `name`.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The field called `name`.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Map(fields) = self else { return None };
        fields.iter().find(|(field, _)| field.snake == name).map(|(_, value)| value)
    }
}

pub(super) fn of_config(config: &Config) -> Shape {
    let mut message = DynamicMessage::new(schema().config.clone());
    // A config always decodes as itself.
    match message.transcode_from(config) {
        Ok(()) => of_message(&message),
        Err(_) => Shape::Map(Vec::new()),
    }
}

fn of_message(message: &DynamicMessage) -> Shape {
    let mut fields: Vec<FieldDescriptor> = message.descriptor().fields().collect();
    fields.sort_by_key(FieldDescriptor::number);
    fields.retain(|field| message.has_field(field) && !OUTPUT.contains(&field.name()));
    let named = fields.into_iter().map(|field| {
        let name = Name {
            number: field.number(),
            snake: field.name().to_owned(),
            camel: field.json_name().to_owned(),
        };
        (name, of_value(&field, &message.get_field(&field)))
    });
    Shape::Map(named.collect())
}

fn of_value(field: &FieldDescriptor, value: &Value) -> Shape {
    match value {
        Value::List(items) => Shape::List(items.iter().map(|item| of_value(field, item)).collect()),
        Value::Message(message) if is_duration(&message.descriptor()) => Shape::Word(duration(message)),
        Value::Message(message) if is_timestamp(&message.descriptor()) => Shape::Text(timestamp(message)),
        Value::Message(message) => of_message(message),
        Value::String(text) if is_decimal(field, schema().decimal.as_ref()) => Shape::Decimal(text.clone()),
        Value::String(text) => Shape::Text(text.clone()),
        Value::EnumNumber(number) => Shape::Word(enumeration(field, *number)),
        Value::Bool(value) => Shape::Word(value.to_string()),
        Value::F64(value) => Shape::Word(value.to_string()),
        Value::U32(value) => Shape::Word(value.to_string()),
        // No field of a configuration has another type; the loader has none either.
        other => Shape::Text(format!("{other:?}")),
    }
}

fn enumeration(field: &FieldDescriptor, number: i32) -> String {
    let Kind::Enum(of) = field.kind() else { return number.to_string() };
    of.get_value(number).map_or_else(|| number.to_string(), |value| value.name().to_owned())
}

/// In RFC 3339, in UTC.
fn timestamp(message: &DynamicMessage) -> String {
    let seconds = message.get_field_by_name("seconds").and_then(|one| one.as_i64()).unwrap_or(0);
    let nanos = message.get_field_by_name("nanos").and_then(|one| one.as_i32()).unwrap_or(0);
    Timestamp { seconds, nanos }.to_string()
}

/// As protobuf writes it: seconds with no, three, six or nine decimal places.
fn duration(message: &DynamicMessage) -> String {
    let seconds = message.get_field_by_name("seconds").and_then(|one| one.as_i64()).unwrap_or(0);
    let nanos = message.get_field_by_name("nanos").and_then(|one| one.as_i32()).unwrap_or(0);
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    let (seconds, nanos) = (seconds.unsigned_abs(), nanos.unsigned_abs());
    if nanos == 0 {
        format!("{sign}{seconds}s")
    } else if nanos.is_multiple_of(1_000_000) {
        format!("{sign}{seconds}.{:03}s", nanos / 1_000_000)
    } else if nanos.is_multiple_of(1_000) {
        format!("{sign}{seconds}.{:06}s", nanos / 1_000)
    } else {
        format!("{sign}{seconds}.{nanos:09}s")
    }
}
