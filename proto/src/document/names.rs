//! Names in documents: what was meant, and what will come later.

use prost_reflect::{EnumDescriptor, EnumValueDescriptor, FieldDescriptor, MessageDescriptor};
use strsim::damerau_levenshtein;

/// Fields that the documentation describes and that are not built yet, by message.
const NOT_BUILT: [(&str, &[&str]); 2] = [("Config", &["experiments"]), ("VirtualModel", &["stream_rescue"])];

/// The field called `name`, in lower_snake or lowerCamel.
pub(super) fn field(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.get_field_by_name(name).or_else(|| message.get_field_by_json_name(name))
}

/// Why there is no field called `name`.
pub(super) fn no_field(message: &MessageDescriptor, name: &str) -> String {
    let flat = name.replace('_', "").to_lowercase();
    let planned = NOT_BUILT.iter().filter(|(owner, _)| *owner == message.name());
    if planned.flat_map(|(_, names)| *names).any(|one| one.replace('_', "") == flat) {
        return format!("{name} is not built yet");
    }
    let known: Vec<String> = message.fields().map(|field| field.name().to_owned()).collect();
    let meant = nearest(name, known.iter().map(String::as_str));
    format!("unknown field in {}{}", message.name(), did_you_mean(meant))
}

/// The value called `name`, with or without the prefix.
pub(super) fn value(of: &EnumDescriptor, name: &str) -> Option<EnumValueDescriptor> {
    of.get_value_by_name(name).or_else(|| of.get_value_by_name(&(prefix(of) + name)))
}

/// Why there is no value called `name`.
pub(super) fn no_value(of: &EnumDescriptor, name: &str) -> String {
    let prefix = prefix(of);
    let short: Vec<String> = of
        .values()
        .filter(|value| value.number() != 0)
        .map(|value| value.name().trim_start_matches(&prefix).to_owned())
        .collect();
    let upper = name.to_uppercase();
    let given = upper.strip_prefix(&prefix).unwrap_or(&upper);
    let meant = nearest(given, short.iter().map(String::as_str));
    format!("'{}' is not a {}{} (one of {})", shown(name), of.name(), did_you_mean(meant), short.join(", "))
}

/// `ContextLengthAction` becomes `CONTEXT_LENGTH_ACTION_`.
fn prefix(of: &EnumDescriptor) -> String {
    let mut prefix = String::new();
    for c in of.name().chars() {
        if c.is_ascii_uppercase() && !prefix.is_empty() {
            prefix.push('_');
        }
        prefix.push(c.to_ascii_uppercase());
    }
    prefix + "_"
}

fn did_you_mean(meant: Option<&str>) -> String {
    meant.map(|name| format!("; did you mean '{name}'?")).unwrap_or_default()
}

/// The known name that `given` most probably was meant to be.
fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer than all names; bounds the work.
    const LONGEST: usize = 64;
    if given.len() > LONGEST {
        return None;
    }
    // camelCase and kebab-case are no typing errors.
    let flat = |name: &str| name.replace(['_', '-'], "").to_lowercase();
    let given = flat(given);
    known
        .map(|name| (damerau_levenshtein(&given, &flat(name)), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

/// Text from the document, at most a line of it.
pub(super) fn shown(text: &str) -> String {
    const SHOWN: usize = 60;
    let short: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() { short + "..." } else { short }
}
