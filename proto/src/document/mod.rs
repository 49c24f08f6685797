//! The configuration document: YAML or JSON text to `Config` and back, and what two
//! configurations differ in. Knows the schema only; what the values mean is checked
//! by [`crate::convert::routing_table`].

mod diff;
mod error;
mod names;
mod scalar;
mod shape;
mod text;
mod tree;
mod walk;

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, ExtensionDescriptor, MessageDescriptor};
use trunkline_routing::table::Version;

pub use diff::{diff, render_diff};
pub use error::{LoadError, LoadProblem};

use crate::{FILE_DESCRIPTOR_SET, admin::v1::Config, convert::routing_table};

/// What the loader and the emitter know of the schema.
struct Schema {
    config: MessageDescriptor,
    decimal: Option<ExtensionDescriptor>,
}

static SCHEMA: LazyLock<Option<Schema>> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).ok()?;
    Some(Schema {
        config: pool.get_message_by_name("trunkline.admin.v1.Config")?,
        decimal: pool.get_extension_by_name("trunkline.types.v1.decimal"),
    })
});

#[expect(clippy::expect_used, reason = "made by this crate's build script; all tests here use it")]
fn schema() -> &'static Schema {
    SCHEMA.as_ref().expect("the descriptors of this crate are complete")
}

/// Reads a document. Field names may be lower_snake or lowerCamel, enum values with or
/// without their prefix, durations in ms, s, m or h, decimals unquoted.
///
/// # Errors
/// Everything that does not fit the schema, with line, column and path.
pub fn load(text: &str) -> Result<Config, LoadError> {
    read(text).map(|(config, _)| config)
}

/// Reads a document and checks that it makes a routing table.
///
/// # Errors
/// Everything that is wrong with it, with line, column and path.
pub fn load_and_check(text: &str) -> Result<Config, LoadError> {
    let (config, root) = read(text)?;
    let Err(problems) = routing_table(Version::default(), &config) else { return Ok(config) };
    let mut error = LoadError::default();
    for problem in problems.iter() {
        let at = walk::locate(&root, &schema().config, &problem.path);
        error.push(at, &problem.path, &problem.message);
    }
    error.add_dropped(problems.dropped());
    Err(error)
}

fn read(text: &str) -> Result<(Config, std::rc::Rc<tree::Node>), LoadError> {
    let Some(root) = tree::parse(text)?.filter(|root| !root.is_null()) else {
        let message = "the document is empty; an empty configuration is written {}";
        return Err(LoadError::one(1, 1, message));
    };
    let schema = schema();
    let message = walk::Walker::new(schema.decimal.clone()).load(&schema.config, &root)?;
    let config = message.transcode_to().map_err(|error| {
        LoadError::one(root.at.0, root.at.1, format!("the document can't be encoded: {error}"))
    })?;
    Ok((config, root))
}

/// The configuration as YAML, in lower_snake and canonical form. The same for the same
/// configuration; `load` gives it back. Etags are left out.
pub fn to_yaml(config: &Config) -> String {
    text::yaml(&shape::of_config(config))
}

/// The configuration as proto3 JSON, in lowerCamel and canonical form. The same for the
/// same configuration; `load` gives it back. Etags are left out.
pub fn to_json(config: &Config) -> String {
    text::json(&shape::of_config(config))
}

#[cfg(test)]
mod tests;
