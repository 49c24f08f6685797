//! Counts that add up: in a report, in a step, since the beginning.

use trunkline_proto::{
    convert,
    telemetry::v1::{self as wire, TargetStats},
    types::v1::OutcomeClass,
};
use trunkline_routing::histogram::Histogram;

use super::Key;

/// Outcome classes by number, `OUTCOME_CLASS_UNSPECIFIED` included.
pub(crate) const CLASSES: usize = 22;

/// Counts of one deployment under one virtual model. Adding is commutative and
/// saturates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) outcomes: [u64; CLASSES],
    pub(crate) input_tokens: u64,
    pub(crate) cached_input_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) cost_nano_usd: u64,
    pub(crate) usage_from_provider: u64,
    pub(crate) usage_estimated: u64,
    pub(crate) unpriced: u64,
    pub(crate) breaker_openings: u64,
    /// Attempts that a drill changed. They are in all other counts.
    pub(crate) faulted: u64,
    pub(crate) ttft: Histogram,
    pub(crate) duration: Histogram,
}

/// A field that no agent may send.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub(crate) struct Invalid {
    /// Path inside the message.
    pub(crate) field: String,
    /// What is wrong.
    pub(crate) why: String,
}

impl Totals {
    /// Adds all of `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.outcomes.iter_mut().zip(other.outcomes) {
            *mine = mine.saturating_add(theirs);
        }
        for (mine, theirs) in [
            (&mut self.input_tokens, other.input_tokens),
            (&mut self.cached_input_tokens, other.cached_input_tokens),
            (&mut self.output_tokens, other.output_tokens),
            (&mut self.cost_nano_usd, other.cost_nano_usd),
            (&mut self.usage_from_provider, other.usage_from_provider),
            (&mut self.usage_estimated, other.usage_estimated),
            (&mut self.unpriced, other.unpriced),
            (&mut self.breaker_openings, other.breaker_openings),
            (&mut self.faulted, other.faulted),
        ] {
            *mine = mine.saturating_add(theirs);
        }
        self.ttft.merge(&other.ttft);
        self.duration.merge(&other.duration);
    }

    /// Counts one outcome.
    pub(crate) fn count(&mut self, outcome: OutcomeClass, count: u64) {
        let slot = &mut self.outcomes[outcome as usize];
        *slot = slot.saturating_add(count);
    }

    /// Attempts that ended.
    pub(crate) fn attempts(&self) -> u64 {
        self.outcomes.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Each outcome that occurred.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (OutcomeClass, u64)> {
        let counts = self.outcomes.iter().enumerate().filter(|(_, count)| **count > 0);
        counts.filter_map(|(number, count)| Some((OutcomeClass::try_from(number as i32).ok()?, *count)))
    }

    /// Reads what an agent, or the store, holds.
    pub(crate) fn from_wire(stats: &TargetStats) -> Result<Self, Invalid> {
        let mut totals = Self {
            input_tokens: stats.input_tokens,
            cached_input_tokens: stats.cached_input_tokens,
            output_tokens: stats.output_tokens,
            cost_nano_usd: stats.cost_nano_usd,
            usage_from_provider: stats.usage_from_provider,
            usage_estimated: stats.usage_estimated,
            unpriced: stats.unpriced,
            breaker_openings: stats.breaker_openings,
            faulted: stats.faulted,
            ttft: histogram("ttft", stats.ttft.as_ref())?,
            duration: histogram("duration", stats.duration.as_ref())?,
            ..Self::default()
        };
        for (index, outcome) in stats.outcomes.iter().enumerate() {
            match OutcomeClass::try_from(outcome.outcome) {
                Ok(OutcomeClass::Unspecified) | Err(_) => {
                    let why = format!("{} is not an OutcomeClass that can be reported", outcome.outcome);
                    return Err(Invalid { field: format!("outcomes[{index}].outcome"), why });
                }
                Ok(class) => totals.count(class, outcome.count),
            }
        }
        Ok(totals)
    }

    /// The form in which it is stored.
    pub(crate) fn to_wire(&self, key: &Key) -> TargetStats {
        TargetStats {
            deployment: key.deployment.clone(),
            model: key.model.clone(),
            outcomes: self
                .outcomes()
                .map(|(class, count)| wire::OutcomeCount { outcome: class.into(), count })
                .collect(),
            input_tokens: self.input_tokens,
            cached_input_tokens: self.cached_input_tokens,
            output_tokens: self.output_tokens,
            cost_nano_usd: self.cost_nano_usd,
            usage_from_provider: self.usage_from_provider,
            usage_estimated: self.usage_estimated,
            unpriced: self.unpriced,
            ttft: Some(convert::wire_histogram(&self.ttft)),
            duration: Some(convert::wire_histogram(&self.duration)),
            breaker_openings: self.breaker_openings,
            faulted: self.faulted,
            // What runs at a moment adds up to nothing.
            in_flight: 0,
        }
    }
}

fn histogram(field: &str, wire: Option<&wire::Histogram>) -> Result<Histogram, Invalid> {
    let Some(wire) = wire else { return Ok(Histogram::new()) };
    convert::histogram(wire.clone())
        .map_err(|error| Invalid { field: field.to_owned(), why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(scale: u64) -> Totals {
        let mut totals =
            Totals { input_tokens: 10 * scale, cost_nano_usd: scale, faulted: scale, ..Totals::default() };
        totals.count(OutcomeClass::Ok, 2 * scale);
        totals.count(OutcomeClass::Timeout, scale);
        totals.ttft.record(1_000 * scale);
        totals
    }

    #[test]
    fn the_class_table_covers_the_contract() {
        assert!(OutcomeClass::try_from(CLASSES as i32 - 1).is_ok());
        assert!(OutcomeClass::try_from(CLASSES as i32).is_err());
    }

    #[test]
    fn what_is_stored_is_what_was_counted() {
        let key = Key { deployment: "p/d".into(), model: "chat".into() };
        assert_eq!(Totals::from_wire(&sample(3).to_wire(&key)), Ok(sample(3)));
    }

    #[test]
    fn the_order_of_merging_does_not_matter() {
        let (mut one, mut other) = (sample(1), sample(5));
        one.merge(&sample(5));
        other.merge(&sample(1));
        assert_eq!(one, other);
        assert_eq!(one.attempts(), 18);
    }

    #[test]
    fn impossible_fields_are_named() {
        let outcomes = vec![wire::OutcomeCount { outcome: 0, count: 1 }];
        let error = Totals::from_wire(&TargetStats { outcomes, ..Default::default() }).unwrap_err();
        assert_eq!(error.field, "outcomes[0].outcome");
        let ttft = Some(wire::Histogram { scale: 4, ..Default::default() });
        assert_eq!(Totals::from_wire(&TargetStats { ttft, ..Default::default() }).unwrap_err().field, "ttft");
    }
}
