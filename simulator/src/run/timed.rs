//! A policy with a stopwatch: how long it takes from a request's arrival until its first
//! attempt is on its way. The simulator's own part of that, drawing what the provider will
//! do, is in the figure.

use std::time::Instant;

use super::{Attempt, Client, Heard, World};

/// Of the requests of a run, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timing {
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
}

/// Passes everything on and times arrivals.
pub(super) struct Timed<'a> {
    inner: &'a mut dyn Client,
    nanos: Vec<u64>,
}

impl<'a> Timed<'a> {
    pub(super) fn new(inner: &'a mut dyn Client) -> Self {
        Self { inner, nanos: Vec::new() }
    }

    pub(super) fn timing(mut self) -> Timing {
        self.nanos.sort_unstable();
        let at = |share: f64| {
            let index = (self.nanos.len().saturating_sub(1) as f64 * share) as usize;
            self.nanos.get(index).map_or(0.0, |nanos| *nanos as f64 / 1e3)
        };
        Timing { p50_us: at(0.5), p99_us: at(0.99) }
    }
}

impl Client for Timed<'_> {
    fn begin(&mut self, world: &mut World<'_>) {
        self.inner.begin(world);
    }

    fn arrived(&mut self, world: &mut World<'_>, request: usize) {
        let begun = Instant::now();
        self.inner.arrived(world, request);
        self.nanos.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    fn woken(&mut self, world: &mut World<'_>, request: usize) {
        self.inner.woken(world, request);
    }

    fn heard(&mut self, world: &mut World<'_>, attempt: Attempt, heard: Heard) {
        self.inner.heard(world, attempt, heard);
    }

    fn timer(&mut self, world: &mut World<'_>, number: usize) {
        self.inner.timer(world, number);
    }

    fn fleet_changed(&mut self, world: &mut World<'_>) {
        self.inner.fleet_changed(world);
    }
}
