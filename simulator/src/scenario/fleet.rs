//! Reads a fleet: a name or a list. By hand, as the derived reader of an enum without tags
//! forgets which field was wrong.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use super::{Fleet, ProviderSpec};

struct NameOrList;

impl<'de> Visitor<'de> for NameOrList {
    type Value = Fleet;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a fleet or a list of providers")
    }

    fn visit_str<E>(self, name: &str) -> Result<Fleet, E> {
        Ok(Fleet::Named(name.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Fleet, A::Error> {
        Vec::<ProviderSpec>::deserialize(SeqAccessDeserializer::new(items)).map(Fleet::Listed)
    }
}

impl<'de> Deserialize<'de> for Fleet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NameOrList)
    }
}

#[cfg(test)]
mod tests {
    use crate::scenario::Scenario;

    #[test]
    fn a_wrong_field_of_a_provider_is_named_with_its_line() {
        let text = "id: x\nname: x\nfleet:\n  - model: { name: a, tttft: {} }\n";
        let error = Scenario::from_yaml(text).unwrap_err().to_string();
        assert!(error.contains("line 4") && error.contains("tttft"), "{error}");
        let error = Scenario::from_yaml("id: x\nname: x\nfleet: 7\n").unwrap_err().to_string();
        assert!(error.contains("a list of providers"), "{error}");
    }
}
