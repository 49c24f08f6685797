//! Messages in proto3 JSON, with fields that have their default value.

use anyhow::Context as _;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::ser::Formatter;

/// `message` as indented JSON; `full_name` is its name in the .proto file.
pub(crate) fn pretty(full_name: &str, message: &impl Message) -> anyhow::Result<String> {
    written(full_name, message, serde_json::Serializer::pretty(Vec::new()))
}

/// The same in one line.
pub(crate) fn line(full_name: &str, message: &impl Message) -> anyhow::Result<String> {
    written(full_name, message, serde_json::Serializer::new(Vec::new()))
}

fn written<F: Formatter>(
    full_name: &str,
    message: &impl Message,
    mut serializer: serde_json::Serializer<Vec<u8>, F>,
) -> anyhow::Result<String> {
    let pool = DescriptorPool::decode(trunkline_proto::FILE_DESCRIPTOR_SET)
        .context("read the built-in descriptors")?;
    let descriptor = pool
        .get_message_by_name(full_name)
        .with_context(|| format!("no message {full_name} in the built-in descriptors"))?;
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .with_context(|| format!("read a {full_name}"))?;
    dynamic
        .serialize_with_options(&mut serializer, &SerializeOptions::new().skip_default_fields(false))
        .with_context(|| format!("write a {full_name} as JSON"))?;
    let mut text = String::from_utf8(serializer.into_inner()).context("JSON is UTF-8")?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use trunkline_proto::admin::v1::{GetStatsResponse, StatsRow};

    use super::*;

    #[test]
    fn zero_counts_are_written() {
        let row = StatsRow { deployment: "a/b".to_owned(), attempts: 3, ..StatsRow::default() };
        let response = GetStatsResponse { rows: vec![row] };
        let text = pretty("trunkline.admin.v1.GetStatsResponse", &response).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["rows"][0]["deployment"], "a/b");
        assert_eq!(value["rows"][0]["attempts"], "3");
        assert_eq!(value["rows"][0]["successes"], "0");
        let line = line("trunkline.admin.v1.GetStatsResponse", &response).unwrap();
        assert_eq!(line.lines().count(), 1);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), value);
    }
}
