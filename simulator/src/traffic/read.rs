//! Reads a trace.

use super::Row;

/// Most rows of a trace: about 24 bytes each are held.
const ROWS_MAX: usize = 5_000_000;
/// Most tokens of a request: more than any window there is.
const TOKENS_MAX: u32 = 10_000_000;

/// A trace that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrafficError {
    /// A column is missing.
    #[error("line 1: there is no column '{0}'; a trace has t_s, input_tokens and output_tokens")]
    Column(&'static str),
    /// A cell is no number.
    #[error("line {line}: {column} is '{value}', must be {must}")]
    Cell {
        /// Which line, from 1.
        line: usize,
        /// Which column.
        column: &'static str,
        /// What is there.
        value: String,
        /// What would be right.
        must: &'static str,
    },
    /// Times go back.
    #[error("line {line}: t_s is smaller than on the line before; rows go by time")]
    Order {
        /// Which line, from 1.
        line: usize,
    },
    /// Nothing to play.
    #[error("there are {0} rows; a trace has 2 to {ROWS_MAX}")]
    Rows(usize),
    /// All at once.
    #[error("all rows have the same t_s; a trace takes some time")]
    Instant,
}

struct Columns {
    t_s: usize,
    input: usize,
    output: usize,
    prefix: Option<usize>,
}

impl Columns {
    fn of(header: &str) -> Result<Self, TrafficError> {
        let names: Vec<&str> = header.split(',').map(str::trim).collect();
        let at = |name: &str| names.iter().position(|known| *known == name);
        let needed = |name: &'static str| at(name).ok_or(TrafficError::Column(name));
        Ok(Self {
            t_s: needed("t_s")?,
            input: needed("input_tokens")?,
            output: needed("output_tokens")?,
            prefix: at("reusable_prefix_tokens"),
        })
    }

    fn row(&self, line: usize, text: &str) -> Result<Row, TrafficError> {
        let cells: Vec<&str> = text.split(',').map(str::trim).collect();
        let cell = |at: usize| cells.get(at).copied().unwrap_or_default();
        let wrong =
            |column, value: &str, must| TrafficError::Cell { line, column, value: value.to_owned(), must };
        let tokens = |column, at: usize| {
            let value = cell(at);
            let tokens = value.parse().ok().filter(|tokens| *tokens <= TOKENS_MAX);
            tokens.ok_or_else(|| wrong(column, value, "a whole number up to 10,000,000"))
        };
        let t_s = cell(self.t_s).parse().ok().filter(|t: &f64| t.is_finite() && *t >= 0.0);
        Ok(Row {
            t_s: t_s.ok_or_else(|| wrong("t_s", cell(self.t_s), "seconds, 0 or more"))?,
            input_tokens: tokens("input_tokens", self.input)?,
            output_tokens: tokens("output_tokens", self.output)?.max(1),
            reusable_prefix_tokens: match self.prefix {
                Some(at) => tokens("reusable_prefix_tokens", at)?,
                None => 0,
            },
        })
    }
}

/// The rows of CSV text.
pub(super) fn rows(text: &str) -> Result<Vec<Row>, TrafficError> {
    let mut lines = (1..).zip(text.lines());
    let columns = Columns::of(lines.next().map_or("", |(_, header)| header))?;
    let mut rows: Vec<Row> = Vec::new();
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let row = columns.row(number, line)?;
        if rows.last().is_some_and(|last| last.t_s > row.t_s) {
            return Err(TrafficError::Order { line: number });
        }
        rows.push(row);
        if rows.len() > ROWS_MAX {
            return Err(TrafficError::Rows(rows.len()));
        }
    }
    if rows.len() < 2 {
        return Err(TrafficError::Rows(rows.len()));
    }
    if rows[0].t_s >= rows[rows.len() - 1].t_s {
        return Err(TrafficError::Instant);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_go_by_name_and_others_are_left_alone() {
        let rows = rows("output_tokens,model,t_s,input_tokens\n5,x,0.5,100\n\n6,y,1.5,200\n").unwrap();
        assert_eq!(rows[0], Row { t_s: 0.5, input_tokens: 100, output_tokens: 5, reusable_prefix_tokens: 0 });
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let check = |text: &str, said: &str| {
            let error = rows(text).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        };
        check("t_s,input_tokens\n", "output_tokens");
        check("t_s,input_tokens,output_tokens\n0,1,1\n1,x,1\n", "line 3: input_tokens is 'x'");
        check("t_s,input_tokens,output_tokens\n1,1,1\n0,1,1\n", "line 3");
        check("t_s,input_tokens,output_tokens\n1,1,1\n", "1 rows");
        check("t_s,input_tokens,output_tokens\n1,1,1\n1,1,1\n", "same t_s");
        check("t_s,input_tokens,output_tokens\nNaN,1,1\n1,1,1\n", "t_s is 'NaN'");
    }
}
