//! A telemetry report, checked: from the wire to what the merger adds up.

use std::{collections::HashMap, time::Duration};

use trunkline_proto::telemetry::v1::{AttemptSample, StreamReportsRequest, TargetStats};

use super::{
    Key,
    totals::{Invalid, Totals},
};

/// Longest agent id, incarnation or name: two names of 63 with a slash, and room.
const NAME_BYTES_MAX: usize = 256;

/// Samples taken of one report; agents send no more.
const SAMPLES_MAX: usize = 256;

/// Telemetry of one agent over one window.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) agent_id: String,
    pub(crate) incarnation: String,
    pub(crate) seq: u64,
    /// The time it was counted in.
    pub(crate) covered: Duration,
    pub(crate) counts: HashMap<Key, Totals>,
    /// When the window ended, in seconds since 1970 on the agent's clock. None: not
    /// said, or nothing a clock could show.
    pub(crate) end_secs: Option<u64>,
    /// The agent was killed before and cannot say what it counted last.
    pub(crate) lost_before: bool,
    /// What no agent should send. It would be the same if it were sent again, so the
    /// rest of the report is taken without it.
    pub(crate) refused: Vec<Invalid>,
    /// Some of the attempts, as the agent says, at most [`SAMPLES_MAX`].
    pub(crate) samples: Vec<AttemptSample>,
    /// Attempts that ran at a deployment when the window ended.
    pub(crate) running: HashMap<String, u32>,
}

impl TryFrom<StreamReportsRequest> for Report {
    type Error = Invalid;

    fn try_from(request: StreamReportsRequest) -> Result<Self, Invalid> {
        name("agent_id", &request.agent_id)?;
        name("incarnation", &request.incarnation)?;
        if request.seq == 0 {
            return Err(Invalid { field: "seq".into(), why: "reports are numbered from 1".into() });
        }
        let mut counts: HashMap<Key, Totals> = HashMap::with_capacity(request.targets.len());
        let mut refused = Vec::new();
        let mut running: HashMap<String, u32> = HashMap::new();
        for (index, stats) in request.targets.into_iter().enumerate() {
            let in_flight = stats.in_flight;
            match target(stats) {
                Ok((key, totals)) => {
                    let sum = running.entry(key.deployment.clone()).or_default();
                    *sum = sum.saturating_add(in_flight);
                    // One that only runs has counted nothing yet.
                    if in_flight == 0 || totals != Totals::default() {
                        counts.entry(key).or_default().merge(&totals);
                    }
                }
                Err(error) => {
                    refused.push(Invalid { field: format!("targets[{index}].{}", error.field), ..error });
                }
            }
        }
        let StreamReportsRequest {
            agent_id,
            incarnation,
            seq,
            covered,
            end_time,
            lost_before,
            mut samples,
            ..
        } = request;
        samples.truncate(SAMPLES_MAX);
        let covered = covered.and_then(|covered| Duration::try_from(covered).ok()).unwrap_or_default();
        let end_secs = end_time.and_then(|end| u64::try_from(end.seconds).ok());
        let lost_before = lost_before.is_some();
        Ok(Self {
            agent_id,
            incarnation,
            seq,
            covered,
            counts,
            end_secs,
            lost_before,
            refused,
            samples,
            running,
        })
    }
}

fn target(stats: TargetStats) -> Result<(Key, Totals), Invalid> {
    name("deployment", &stats.deployment)?;
    name("model", &stats.model)?;
    let totals = Totals::from_wire(&stats)?;
    Ok((Key { deployment: stats.deployment, model: stats.model }, totals))
}

fn name(field: &str, text: &str) -> Result<(), Invalid> {
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !printable {
        let why = format!("must be 1 to {NAME_BYTES_MAX} printable ASCII characters without spaces");
        return Err(Invalid { field: field.to_owned(), why });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use trunkline_proto::telemetry::v1::Histogram;

    use super::*;

    fn request() -> StreamReportsRequest {
        let target = TargetStats { deployment: "p/d".into(), model: "chat".into(), ..Default::default() };
        StreamReportsRequest {
            agent_id: "a".into(),
            incarnation: "i".into(),
            seq: 1,
            targets: vec![target],
            ..Default::default()
        }
    }

    fn changed(change: impl FnOnce(&mut StreamReportsRequest)) -> Result<Report, Invalid> {
        let mut request = request();
        change(&mut request);
        Report::try_from(request)
    }

    #[test]
    fn a_report_without_a_number_or_sender_is_refused() {
        assert_eq!(changed(|_| {}).unwrap().refused, []);
        assert_eq!(changed(|request| request.agent_id.clear()).unwrap_err().field, "agent_id");
        assert_eq!(changed(|request| request.incarnation = "a b".into()).unwrap_err().field, "incarnation");
        assert_eq!(changed(|request| request.seq = 0).unwrap_err().field, "seq");
    }

    #[test]
    fn what_only_runs_is_told_apart_from_what_was_counted() {
        let report = changed(|request| {
            let other = TargetStats { model: "other".into(), in_flight: 2, ..request.targets[0].clone() };
            request.targets[0].in_flight = 3;
            request.targets[0].input_tokens = 1;
            request.targets.push(other);
            request.samples = vec![AttemptSample::default(); SAMPLES_MAX + 1];
        });
        let report = report.unwrap();
        assert_eq!((report.counts.len(), report.running["p/d"], report.samples.len()), (1, 5, SAMPLES_MAX));
    }

    #[test]
    fn a_wrong_target_is_named_and_the_others_are_taken() {
        let wrong = TargetStats { model: "a b".into(), ..request().targets.remove(0) };
        let report = changed(|request| request.targets.insert(0, wrong)).unwrap();
        assert_eq!((report.refused[0].field.as_str(), report.counts.len()), ("targets[0].model", 1));
        let histogram = Some(Histogram { scale: 9, ..Default::default() });
        let report = changed(|request| request.targets[0].duration = histogram).unwrap();
        assert_eq!((report.refused[0].field.as_str(), report.counts.len()), ("targets[0].duration", 0));
    }
}
