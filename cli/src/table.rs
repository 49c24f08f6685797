//! Text tables for terminals.

/// On which side a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    /// For numbers.
    Right,
}

/// Between columns.
const GAP: &str = "  ";

/// A heading line and one line per row, columns aligned, no trailing spaces. Rows
/// have as many cells as there are columns.
pub(crate) fn render<const N: usize>(columns: [(&str, Align); N], rows: &[[String; N]]) -> String {
    let headings = columns.map(|(heading, _)| heading.to_owned());
    let mut widths = [0; N];
    for row in rows.iter().chain([&headings]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in [&headings].into_iter().chain(rows) {
        let cells = row.iter().zip(columns).zip(widths).map(|((cell, (_, align)), width)| match align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join(GAP).trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["swift/sim-large".to_owned(), "70".to_owned(), "ok".to_owned()],
            ["a/b".to_owned(), "1234567890".to_owned(), String::new()],
        ];
        let columns = [("DEPLOYMENT", Align::Left), ("ATTEMPTS", Align::Right), ("STATE", Align::Left)];
        assert_eq!(
            render(columns, &rows),
            "DEPLOYMENT         ATTEMPTS  STATE\n\
             swift/sim-large          70  ok\n\
             a/b              1234567890\n"
        );
    }
}
