//! Colours that people with any kind of colour vision can tell apart: Okabe and Ito's
//! set (2008), which Wong recommends in Nature Methods 8, 441 (2011). Its yellow is left
//! out: on white it is hard to see.

/// In the order in which they are given away.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d4d4d"];

/// Second look of a colour, for more than seven.
const DASHES: [&str; 3] = ["", "6 4", "2 3"];

/// Of the good part of a strip.
pub(super) const GOOD: &str = "#9ecae1";
/// Of the bad part of a strip.
pub(super) const BAD: &str = "#d55e00";

/// The colour of the n-th thing.
pub(super) fn colour(n: usize) -> &'static str {
    COLOURS[n % COLOURS.len()]
}

/// The dash of the n-th line, so that two of one colour differ.
pub(super) fn dash(n: usize) -> &'static str {
    DASHES[(n / COLOURS.len()) % DASHES.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn twenty_lines_all_look_different() {
        let looks: HashSet<_> = (0..20).map(|n| (colour(n), dash(n))).collect();
        assert_eq!(looks.len(), 20);
    }
}
