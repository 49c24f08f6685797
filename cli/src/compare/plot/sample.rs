//! Numbers to draw in tests: seven strategies, an incident from 120 s to 240 s.

use super::{Figures, Series};

/// A comparison as it may come out.
pub(crate) fn figures() -> Figures {
    let names = [
        ("trunkline latency", 0.5, 4.0, 0.9998, 1.78, 0.996),
        ("trunkline cost", 0.8, 5.0, 0.9990, 1.19, 0.997),
        ("round-robin", 2.0, 10.0, 0.93, 1.92, 0.865),
        ("smooth-wrr", 1.8, 9.0, 0.95, 1.80, 0.912),
        ("litellm-latency", 0.6, 5.0, 0.70, 1.75, 0.87),
        ("peak-ewma-p2c", 1.1, 7.0, 0.96, 1.70, 0.946),
        ("oracle", 0.45, 3.8, 1.0, 1.70, 1.0),
    ];
    let series = names.map(|(name, ttft, e2e, success, usd, slo)| Series {
        name: name.to_owned(),
        is_own: name.starts_with("trunkline"),
        ttft_s: [ttft, ttft * 3.0, ttft * 6.0],
        e2e_s: [e2e, e2e * 3.0, f64::min(60.0, e2e * 5.0)],
        e2e_quantiles_s: (1..=100).map(|n| f64::min(60.0, e2e * 0.2 * 1.04_f64.powi(n))).collect(),
        success: (0..72).map(|w| Some(if (24..48).contains(&w) { success } else { 1.0 })).collect(),
        shares: (0..72).map(|w| shares(w, name == "round-robin")).collect(),
        usd_per_1000: [usd, usd * 0.97, usd * 1.03],
        slo: [slo, slo - 0.01, f64::min(1.0, slo + 0.01)],
    });
    Figures {
        title: "02 brownout: the fast provider answers six times as slow".to_owned(),
        subtitle: "azure-2023 traffic, 5 seeds, 12 agents, congestion hyperbolic".to_owned(),
        deployments: ["alpha/m", "beta/m", "gamma/m", "delta/m", "epsilon/m"].map(str::to_owned).to_vec(),
        incidents: vec![[120.0, 240.0]],
        window_s: 5.0,
        series: series.to_vec(),
    }
}

fn shares(window: usize, equal: bool) -> Vec<f64> {
    if equal {
        return vec![0.2; 5];
    }
    if (25..50).contains(&window) { vec![0.05, 0.5, 0.2, 0.15, 0.1] } else { vec![0.6, 0.2, 0.1, 0.05, 0.05] }
}
