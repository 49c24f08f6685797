//! Names that people type: found, or refused with the nearest that there is.

use crate::failure::Failure;

/// How alike two names must be for one to be meant: 1 is the same, 0 nothing in common.
const ALIKE: f64 = 0.7;

/// Says that `kind` has no `name`, and what may have been meant.
pub(super) fn unknown<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Failure {
    let known: Vec<&str> = known.into_iter().collect();
    let alike = known.iter().map(|other| (strsim::jaro_winkler(name, other), *other));
    let nearest = alike.filter(|(alike, _)| *alike >= ALIKE).max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match nearest {
        Some((_, nearest)) => format!("did you mean '{nearest}'?"),
        None => format!("there are: {}", known.join(", ")),
    };
    Failure::wrong_input(format!("there is no {kind} '{name}'; {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_answered_with_the_name_that_was_meant() {
        let known = ["latency", "round-robin", "oracle"];
        assert_eq!(
            unknown("strategy", "latnecy", known).to_string(),
            "there is no strategy 'latnecy'; did you mean 'latency'?"
        );
        assert_eq!(
            unknown("strategy", "xyz", known).to_string(),
            "there is no strategy 'xyz'; there are: latency, round-robin, oracle"
        );
    }
}
