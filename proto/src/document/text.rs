//! Values as YAML and JSON text.

use super::shape::{Name, Shape};

/// Block style; lists and maps of plain values too, so that diffs of files are small.
pub(super) fn yaml(shape: &Shape) -> String {
    let mut out = String::new();
    match shape {
        Shape::Map(fields) if !fields.is_empty() => yaml_fields(fields, 0, &mut out),
        other => {
            out.push_str(&flow(other));
            out.push('\n');
        }
    }
    out
}

fn yaml_fields(fields: &[(Name, Shape)], indent: usize, out: &mut String) {
    for (index, (name, value)) in fields.iter().enumerate() {
        // The first field of a list's element stands behind its dash.
        if index > 0 || out.is_empty() || out.ends_with('\n') {
            out.push_str(&" ".repeat(indent));
        }
        out.push_str(&name.snake);
        out.push(':');
        match value {
            Shape::Map(fields) if !fields.is_empty() => {
                out.push('\n');
                yaml_fields(fields, indent + 2, out);
            }
            Shape::List(items) if items.iter().any(|item| matches!(item, Shape::Map(_))) => {
                out.push('\n');
                yaml_items(items, indent + 2, out);
            }
            other => {
                out.push(' ');
                out.push_str(&flow(other));
                out.push('\n');
            }
        }
    }
}

fn yaml_items(items: &[Shape], indent: usize, out: &mut String) {
    for item in items {
        out.push_str(&" ".repeat(indent));
        out.push_str("- ");
        match item {
            Shape::Map(fields) if !fields.is_empty() => yaml_fields(fields, indent + 2, out),
            other => {
                out.push_str(&flow(other));
                out.push('\n');
            }
        }
    }
}

/// On one line, in YAML.
pub(super) fn flow(shape: &Shape) -> String {
    match shape {
        Shape::Text(text) if is_plain(text) => text.clone(),
        Shape::Text(text) | Shape::Decimal(text) => quoted(text),
        Shape::Word(word) => word.clone(),
        Shape::List(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Shape::Map(fields) => {
            let field = |(name, value): &(Name, Shape)| format!("{}: {}", name.snake, flow(value));
            let fields: Vec<String> = fields.iter().map(field).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

/// Whether every YAML reader takes the text for text, in lists and maps too.
fn is_plain(text: &str) -> bool {
    /// Of YAML 1.1 and 1.2, in lower case.
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte);
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.bytes().all(inner)
        && !text.ends_with(':')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

/// In quotes, as both YAML and JSON read it.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            // Not printable in YAML, or a line break there.
            '\0'..='\x1f'
            | '\x7f'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => out.extend(["\\u", &format!("{:04x}", u32::from(c))]),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Indented by two.
pub(super) fn json(shape: &Shape) -> String {
    let mut out = String::new();
    json_value(shape, 0, &mut out);
    out.push('\n');
    out
}

fn json_value(shape: &Shape, indent: usize, out: &mut String) {
    match shape {
        Shape::Text(text) | Shape::Decimal(text) => out.push_str(&quoted(text)),
        Shape::Word(word) if is_json(word) => out.push_str(word),
        // Durations and names of enum values.
        Shape::Word(word) => out.push_str(&quoted(word)),
        Shape::List(items) => {
            let items = items.iter().map(|item| (None, item));
            json_block(('[', ']'), items, indent, out);
        }
        Shape::Map(fields) => {
            let fields = fields.iter().map(|(name, value)| (Some(name), value));
            json_block(('{', '}'), fields, indent, out);
        }
    }
}

/// Whether a word is a boolean or a number of JSON.
fn is_json(word: &str) -> bool {
    let number = word.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    matches!(word, "true" | "false") || (number && word.parse::<f64>().is_ok())
}

fn json_block<'a>(
    (open, close): (char, char),
    items: impl Iterator<Item = (Option<&'a Name>, &'a Shape)>,
    indent: usize,
    out: &mut String,
) {
    out.push(open);
    let mut empty = true;
    for (name, value) in items {
        out.push_str(if empty { "\n" } else { ",\n" });
        out.push_str(&" ".repeat(indent + 2));
        if let Some(name) = name {
            out.extend(["\"", name.camel.as_str(), "\": "]);
        }
        json_value(value, indent + 2, out);
        empty = false;
    }
    if !empty {
        out.push('\n');
        out.push_str(&" ".repeat(indent));
    }
    out.push(close);
}
