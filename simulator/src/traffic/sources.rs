//! The traffic that comes with the simulator. Sources and licences: `data/SOURCES.md`.

use std::sync::LazyLock;

use super::{Part, Row, Source, Traffic, TrafficError, read};

/// Every built-in traffic, with what it is.
pub const NAMES: [(&str, &str); 6] = [
    ("mixed-a", "chat, code and long documents: 60, 25 and 15 of 100 requests"),
    ("mixed-b", "chat, code and long documents: 30, 40 and 30 of 100 requests"),
    ("azure-conv", "chat, Azure 2023"),
    ("azure-code", "code completion, Azure 2023"),
    ("mooncake", "long conversations, Mooncake 2024"),
    ("synthetic", "independent requests of lognormal sizes"),
];

/// What came of reading a trace.
type Trace = Result<Vec<Row>, TrafficError>;

static CONV: LazyLock<Trace> = LazyLock::new(|| trace(include_str!("../../data/azure2023_conv.csv"), 0.0));
static CODE: LazyLock<Trace> = LazyLock::new(|| trace(include_str!("../../data/azure2023_code.csv"), 0.0));
/// Its clock ticks every three seconds; requests of a tick come at any time in it.
static MOONCAKE: LazyLock<Trace> =
    LazyLock::new(|| trace(include_str!("../../data/mooncake_conversation.csv"), 3.0));

fn trace(text: &str, tick_s: f64) -> Trace {
    let mut rows = read::rows(text)?;
    // Rows of one tick are laid out evenly over it.
    let mut first = 0;
    while first < rows.len() {
        let tick = rows[first].t_s;
        let same = rows[first..].iter().take_while(|row| row.t_s <= tick).count();
        for (at, row) in rows[first..first + same].iter_mut().enumerate() {
            row.t_s += tick_s * at as f64 / same as f64;
        }
        first += same;
    }
    Ok(rows)
}

fn part(route: &str, share: f64, trace: &Trace) -> Result<Part, TrafficError> {
    Ok(Part { route: route.to_owned(), share, source: Source::Trace(trace.clone()?) })
}

fn chat(share: f64) -> Result<Part, TrafficError> {
    part("chat", share, &CONV)
}

fn code(share: f64) -> Result<Part, TrafficError> {
    part("code", share, &CODE)
}

fn long(share: f64) -> Result<Part, TrafficError> {
    part("long", share, &MOONCAKE)
}

/// The built-in traffic of that name. None: there is none.
pub(super) fn named(name: &str) -> Result<Option<Traffic>, TrafficError> {
    let parts = match name {
        "mixed-a" => vec![chat(0.60)?, code(0.25)?, long(0.15)?],
        "mixed-b" => vec![chat(0.30)?, code(0.40)?, long(0.30)?],
        "azure-conv" => vec![chat(1.0)?],
        "azure-code" => vec![code(1.0)?],
        "mooncake" => vec![long(1.0)?],
        "synthetic" => vec![Part {
            route: "chat".to_owned(),
            share: 1.0,
            source: Source::Synthetic {
                input_median: 1000.0,
                input_sigma: 1.0,
                output_median: 150.0,
                output_sigma: 0.8,
            },
        }],
        _ => return Ok(None),
    };
    Ok(Some(Traffic { name: name.to_owned(), parts }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_traffic_is_there() {
        for (name, _) in NAMES {
            let traffic = named(name).unwrap().unwrap();
            assert!(!traffic.parts.is_empty());
            for part in traffic.parts {
                if let Source::Trace(rows) = part.source {
                    assert!(rows.len() > 4_000, "{name}: {} rows", rows.len());
                    assert!(rows.windows(2).all(|pair| pair[0].t_s <= pair[1].t_s), "{name}");
                }
            }
        }
        assert_eq!(named("none"), Ok(None));
    }
}
