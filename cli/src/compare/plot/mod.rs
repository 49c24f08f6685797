//! The plots of a comparison: each as SVG and as PNG. They take plain numbers, so they
//! know neither the simulator nor how the numbers were made.

mod axis;
mod canvas;
mod cdf;
mod cost;
mod latency;
mod palette;
mod png;
mod share;
mod strips;

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// What the plots show.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// Of the scenario.
    pub(crate) title: String,
    /// Traffic, seeds, congestion: what was run, in one line.
    pub(crate) subtitle: String,
    /// Deployments, in the order of the shares.
    pub(crate) deployments: Vec<String>,
    /// From when to when something is wrong, in seconds; drawn as a background.
    pub(crate) incidents: Vec<[f64; 2]>,
    /// Seconds of one window of the time series.
    pub(crate) window_s: f64,
    /// The strategies, in the order in which they were named.
    pub(crate) series: Vec<Series>,
}

/// One strategy's numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    /// The strategy.
    pub(crate) name: String,
    /// Whether it is one of Trunkline's own: drawn stronger.
    pub(crate) is_own: bool,
    /// Time to first token: p50, p95, p99, in seconds.
    pub(crate) ttft_s: [f64; 3],
    /// Whole answers, the same.
    pub(crate) e2e_s: [f64; 3],
    /// Seconds within which equal shares of all requests were answered, ascending.
    pub(crate) e2e_quantiles_s: Vec<f64>,
    /// Of each window: share of its requests that succeeded, 0 to 1; none without requests.
    pub(crate) success: Vec<Option<f64>>,
    /// Of each window: what part of the attempts went to each deployment, 0 to 1.
    pub(crate) shares: Vec<Vec<f64>>,
    /// US dollars for 1,000 requests; with the ends of its interval.
    pub(crate) usd_per_1000: [f64; 3],
    /// Share of requests within the objective, 0 to 1; with the ends of its interval.
    pub(crate) slo: [f64; 3],
}

/// Draws all plots into `directory`, which is made if need be.
///
/// Returns the files, SVG and PNG of each plot.
pub(crate) fn draw(figures: &Figures, directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let plots = [
        ("latency", latency::draw(figures)),
        ("latency-cdf", cdf::draw(figures)),
        ("shares", share::draw(figures)),
        ("success", strips::draw(figures)),
        ("cost", cost::draw(figures)),
    ];
    let mut files = Vec::new();
    for (name, svg) in plots {
        let pixels = png::png(&svg).with_context(|| format!("draw {name}.png"))?;
        for (extension, bytes) in [("svg", svg.into_bytes()), ("png", pixels)] {
            let path = directory.join(name).with_extension(extension);
            std::fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
pub(crate) mod sample;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plot_is_written_twice_and_names_every_strategy() {
        let directory = tempfile::tempdir().unwrap();
        let figures = sample::figures();
        let files = draw(&figures, &directory.path().join("new")).unwrap();
        assert_eq!(files.len(), 10);
        for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "svg")) {
            let text = std::fs::read_to_string(file).unwrap();
            for series in &figures.series {
                assert!(text.contains(&series.name), "{}: {}", file.display(), series.name);
            }
        }
    }

    #[test]
    fn the_same_numbers_give_the_same_drawing() {
        let figures = sample::figures();
        assert_eq!(share::draw(&figures), share::draw(&figures.clone()));
        assert_eq!(cost::draw(&figures), cost::draw(&figures.clone()));
    }

    #[test]
    fn nothing_measured_still_draws() {
        let empty = Figures { window_s: 5.0, ..Figures::default() };
        let series = vec![Series { name: "a".to_owned(), ..Series::default() }];
        for figures in [empty.clone(), Figures { series, ..empty }] {
            for svg in [
                latency::draw(&figures),
                cdf::draw(&figures),
                share::draw(&figures),
                strips::draw(&figures),
                cost::draw(&figures),
            ] {
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }
}
