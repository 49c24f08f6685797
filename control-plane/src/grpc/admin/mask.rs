//! Field masks: takes over the named fields of one message into another, for any
//! message of the wire contract.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, ReflectMessage as _, Value,
};
use prost_types::FieldMask;
use tonic::Status;
use trunkline_proto::status;

/// Paths in one mask; more than any message of the contract has fields.
const PATHS_MAX: usize = 200;

static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(trunkline_proto::FILE_DESCRIPTOR_SET).ok());

/// The stored message with the fields of `given` that `mask` names. No mask: those
/// that are set in `given`; `*`: all. `fixed` fields (name, etag) are never taken over.
pub(super) fn merge<T: Message + Default>(
    type_name: &str,
    stored: &T,
    given: &T,
    mask: Option<&FieldMask>,
    fixed: &[&str],
) -> Result<T, Status> {
    let descriptor = POOL
        .as_ref()
        .and_then(|pool| pool.get_message_by_name(type_name))
        .ok_or_else(|| Status::internal(format!("no descriptor of {type_name} is compiled in")))?;
    let mut stored = reflect(&descriptor, stored)?;
    let given = reflect(&descriptor, given)?;
    match mask.map(|mask| mask.paths.as_slice()).filter(|paths| !paths.is_empty()) {
        None => take_set(&mut stored, &given, fixed),
        Some([star]) if star == "*" => take_all(&mut stored, &given, fixed),
        Some(paths) if paths.len() > PATHS_MAX => {
            return Err(status::invalid_field(
                "update_mask",
                &format!("must not hold more than {PATHS_MAX} paths"),
            ));
        }
        Some(paths) => {
            // Every path is checked before any is taken over.
            let paths = paths.iter().map(|path| resolve(&descriptor, path)).collect::<Result<Vec<_>, _>>()?;
            for path in
                paths.iter().filter(|path| !path.first().is_some_and(|field| fixed.contains(&field.name())))
            {
                take_path(&mut stored, Some(&given), path);
            }
        }
    }
    stored
        .transcode_to()
        .map_err(|error| Status::internal(format!("masked {type_name} cannot be read: {error}")))
}

fn reflect<T: Message>(descriptor: &MessageDescriptor, message: &T) -> Result<DynamicMessage, Status> {
    DynamicMessage::decode(descriptor.clone(), message.encode_to_vec().as_slice())
        .map_err(|error| Status::internal(format!("{} cannot be read: {error}", descriptor.full_name())))
}

fn take_set(stored: &mut DynamicMessage, given: &DynamicMessage, fixed: &[&str]) {
    for (field, value) in given.fields().filter(|(field, _)| !fixed.contains(&field.name())) {
        stored.set_field(&field, value.clone());
    }
}

fn take_all(stored: &mut DynamicMessage, given: &DynamicMessage, fixed: &[&str]) {
    let descriptor = stored.descriptor();
    for field in descriptor.fields().filter(|field| !fixed.contains(&field.name())) {
        take_path(stored, Some(given), &[field]);
    }
}

/// Copies one field, or clears it when it is not set in `given`.
fn take_path(stored: &mut DynamicMessage, given: Option<&DynamicMessage>, path: &[FieldDescriptor]) {
    let Some((field, rest)) = path.split_first() else { return };
    let value = given.filter(|given| given.has_field(field)).map(|given| given.get_field(field));
    if rest.is_empty() {
        match value {
            Some(value) => stored.set_field(field, value.into_owned()),
            None => stored.clear_field(field),
        }
        return;
    }
    let inner_given = value.as_deref().and_then(Value::as_message);
    if inner_given.is_none() && !stored.has_field(field) {
        return;
    }
    if let Some(inner) = stored.get_field_mut(field).as_message_mut() {
        take_path(inner, inner_given, rest);
    }
}

fn resolve(descriptor: &MessageDescriptor, path: &str) -> Result<Vec<FieldDescriptor>, Status> {
    let mut fields = Vec::new();
    let mut message = Some(descriptor.clone());
    for name in path.split('.') {
        let Some(inside) = message else {
            return Err(unknown(path, "its parent is replaced as a whole and has no paths inside"));
        };
        let Some(field) = inside.get_field_by_name(name) else {
            let known: Vec<_> = inside.fields().map(|field| field.name().to_owned()).collect();
            return Err(unknown(path, &format!("known here: {}", known.join(", "))));
        };
        message = if field.is_list() || field.is_map() { None } else { field.kind().as_message().cloned() };
        fields.push(field);
    }
    Ok(fields)
}

fn unknown(path: &str, why: &str) -> Status {
    status::invalid_field("update_mask", &format!("`{path}` is not a field; {why}"))
}

#[cfg(test)]
mod tests {
    use trunkline_proto::types::v1::{BreakerPolicy, Credential, Deployment, Provider, credential::Source};

    use super::*;

    const FIXED: &[&str] = &["name", "etag"];

    fn stored() -> Provider {
        Provider {
            name: "openai".into(),
            region: "us".into(),
            base_url: "https://a".into(),
            credential: Some(Credential { source: Some(Source::Env("KEY".into())) }),
            breaker: Some(BreakerPolicy {
                consecutive_failures: Some(7),
                min_requests: Some(9),
                ..Default::default()
            }),
            deployments: vec![Deployment { name: "mini".into(), ..Default::default() }],
            ..Default::default()
        }
    }

    fn merged(given: &Provider, paths: Option<&[&str]>) -> Result<Provider, Status> {
        let mask = paths.map(|paths| FieldMask { paths: paths.iter().map(ToString::to_string).collect() });
        merge("trunkline.types.v1.Provider", &stored(), given, mask.as_ref(), FIXED)
    }

    #[test]
    fn without_a_mask_the_set_fields_are_taken() {
        let given = Provider { name: "other".into(), region: "eu".into(), ..Default::default() };
        assert_eq!(merged(&given, None).unwrap(), Provider { region: "eu".into(), ..stored() });
    }

    #[test]
    fn a_star_replaces_everything_but_the_name() {
        let given = Provider { name: "other".into(), region: "eu".into(), ..Default::default() };
        assert_eq!(merged(&given, Some(&["*"])).unwrap(), Provider { name: "openai".into(), ..given });
    }

    #[test]
    fn a_named_field_that_is_not_set_is_cleared() {
        let result = merged(&Provider::default(), Some(&["region", "breaker.min_requests"])).unwrap();
        assert_eq!(result.region, "");
        let breaker = BreakerPolicy { consecutive_failures: Some(7), ..Default::default() };
        assert_eq!(result.breaker, Some(breaker));
    }

    #[test]
    fn a_member_of_a_oneof_replaces_its_sibling() {
        let credential = Some(Credential { source: Some(Source::File("/run/key".into())) });
        let given = Provider { credential: credential.clone(), ..Default::default() };
        assert_eq!(merged(&given, Some(&["credential.file"])).unwrap().credential, credential);
    }

    #[test]
    fn unknown_paths_are_refused_with_the_known_ones() {
        let error = merged(&Provider::default(), Some(&["regoin"])).unwrap_err();
        assert!(error.message().contains("region"), "{}", error.message());
        assert!(merged(&Provider::default(), Some(&["breaker.nope"])).is_err());
        assert!(merged(&Provider::default(), Some(&["deployments.name"])).is_err());
        assert!(merged(&Provider::default(), Some(&["region.x"])).is_err());
    }
}
