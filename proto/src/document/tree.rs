//! YAML or JSON text as a tree that knows where everything was. Scalars stay text:
//! what they mean depends on the field.

use std::{collections::HashMap, rc::Rc};

use granit_parser::{Event, Parser, ScalarStyle};

use super::error::LoadError;

/// Longest document. 10,000 virtual models are about 4 MB.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Deepest nesting; the schema needs 7.
const MAX_DEPTH: usize = 64;

/// Most values, with aliases counted as what they stand for: a few short lines can
/// stand for billions.
const MAX_VALUES: usize = 200_000;

/// A value and where it begins.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: (usize, usize),
    pub(super) content: Content,
    /// Values in it, itself included, aliases expanded.
    values: usize,
    /// Levels in it, itself included.
    depth: usize,
}

#[derive(Debug)]
pub(super) enum Content {
    Scalar { text: String, quoted: bool },
    List(Vec<Rc<Node>>),
    Map(Vec<(Rc<Node>, Rc<Node>)>),
}

impl Node {
    /// Whether it is a null of YAML or JSON.
    pub(super) fn is_null(&self) -> bool {
        match &self.content {
            Content::Scalar { text, quoted: false } => {
                matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }
}

/// The only document in `text`. None: there is none.
pub(super) fn parse(text: &str) -> Result<Option<Rc<Node>>, LoadError> {
    if text.len() > MAX_BYTES {
        return Err(LoadError::one(0, 0, "the document is longer than 8 MiB"));
    }
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event
            .map_err(|error| LoadError::one(error.marker().line(), error.marker().col() + 1, error.info()))?;
        let at = (span.start.line(), span.start.col() + 1);
        builder.event(event, at).map_err(|message| LoadError::one(at.0, at.1, message))?;
    }
    Ok(builder.root)
}

/// A list or map that is not finished.
struct Open {
    at: (usize, usize),
    anchor: usize,
    is_map: bool,
    children: Vec<Rc<Node>>,
}

#[derive(Default)]
struct Builder {
    documents: usize,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    /// Values so far, aliases expanded.
    values: usize,
    root: Option<Rc<Node>>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, at: (usize, usize)) -> Result<(), &'static str> {
        const TAG: &str = "tags (!...) are not supported";
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err("a second document (---) is not supported");
                }
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, _, Some(_))
            | Event::MappingStart(_, _, Some(_)) => return Err(TAG),
            Event::Scalar(text, style, anchor, None) => {
                let quoted = style != ScalarStyle::Plain;
                let content = Content::Scalar { text: text.into_owned(), quoted };
                self.place(Node { at, content, values: 1, depth: 1 }, anchor)?;
            }
            Event::SequenceStart(_, anchor, None) => self.begin(at, anchor, false)?,
            Event::MappingStart(_, anchor, None) => self.begin(at, anchor, true)?,
            Event::SequenceEnd | Event::MappingEnd => self.end()?,
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                // Its anchor is on something that it is inside of.
                self.add(node.ok_or("an alias must not be inside of what it stands for")?)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, at: (usize, usize), anchor: usize, is_map: bool) -> Result<(), &'static str> {
        if self.open.len() >= MAX_DEPTH {
            return Err("deeper than 64 levels");
        }
        self.open.push(Open { at, anchor, is_map, children: Vec::new() });
        Ok(())
    }

    fn end(&mut self) -> Result<(), &'static str> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let values = 1 + open.children.iter().map(|one| one.values).sum::<usize>();
        let depth = 1 + open.children.iter().map(|one| one.depth).max().unwrap_or(0);
        // Children were counted when they were added.
        self.values = self.values.saturating_sub(values - 1);
        let content = if open.is_map {
            let mut children = open.children.into_iter();
            let mut pairs = Vec::new();
            while let (Some(key), Some(value)) = (children.next(), children.next()) {
                pairs.push((key, value));
            }
            Content::Map(pairs)
        } else {
            Content::List(open.children)
        };
        self.place(Node { at: open.at, content, values, depth }, open.anchor)
    }

    fn place(&mut self, node: Node, anchor: usize) -> Result<(), &'static str> {
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.add(node)
    }

    fn add(&mut self, node: Rc<Node>) -> Result<(), &'static str> {
        self.values += node.values;
        if self.values > MAX_VALUES {
            return Err("more than 200,000 values, with aliases counted as what they stand for");
        }
        if self.open.len() + node.depth > MAX_DEPTH {
            return Err("deeper than 64 levels");
        }
        match self.open.last_mut() {
            Some(open) => open.children.push(node),
            None => self.root = Some(node),
        }
        Ok(())
    }
}
