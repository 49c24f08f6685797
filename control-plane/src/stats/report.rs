//! A telemetry report, checked: from the wire to what the merger adds up.

use std::collections::HashMap;

use trunkline_proto::telemetry::v1::StreamReportsRequest;

use super::{
    Key,
    totals::{Invalid, Totals},
};

/// Longest agent id, incarnation or name: two names of 63 with a slash, and room.
const NAME_BYTES_MAX: usize = 256;

/// Telemetry of one agent over one window.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) agent_id: String,
    pub(crate) incarnation: String,
    pub(crate) seq: u64,
    pub(crate) counts: HashMap<Key, Totals>,
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
        for (index, target) in request.targets.into_iter().enumerate() {
            name(&format!("targets[{index}].deployment"), &target.deployment)?;
            name(&format!("targets[{index}].model"), &target.model)?;
            let totals = Totals::from_wire(&target)
                .map_err(|error| Invalid { field: format!("targets[{index}].{}", error.field), ..error })?;
            let key = Key { deployment: target.deployment, model: target.model };
            counts.entry(key).or_default().merge(&totals);
        }
        Ok(Self { agent_id: request.agent_id, incarnation: request.incarnation, seq: request.seq, counts })
    }
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
    use trunkline_proto::telemetry::v1::{Histogram, TargetStats};

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

    fn refused(change: impl FnOnce(&mut StreamReportsRequest)) -> String {
        let mut request = request();
        change(&mut request);
        Report::try_from(request).unwrap_err().field
    }

    #[test]
    fn a_wrong_field_is_named() {
        assert!(Report::try_from(request()).is_ok());
        assert_eq!(refused(|request| request.agent_id.clear()), "agent_id");
        assert_eq!(refused(|request| request.seq = 0), "seq");
        assert_eq!(refused(|request| request.targets[0].model = "a b".into()), "targets[0].model");
        let histogram = Some(Histogram { scale: 9, ..Default::default() });
        assert_eq!(refused(|request| request.targets[0].duration = histogram), "targets[0].duration");
    }
}
