//! `fault`: drills begin and end.

use anyhow::anyhow;
use trunkline_proto::{
    admin::v1::{ClearFaultRequest, InjectFaultRequest, ListFaultsResponse},
    types::v1::{ControlPlaneLossFault, CutFault, Fault, StallFault, fault},
};

use crate::{
    args::{Effect, FaultArgs, FaultCommand, InjectArgs},
    client::ControlPlane,
    failure::Failure,
    get, terminal,
};

pub(crate) async fn run(args: FaultArgs) -> Result<(), Failure> {
    let control_plane = ControlPlane::of(&args.connection)?;
    match args.command {
        FaultCommand::Inject(args) => {
            let request = request(*args)?;
            let dry_run = request.validate_only;
            let answer =
                control_plane.call(request, async |admin, request| admin.inject_fault(request).await).await?;
            let table = get::faults_table(&ListFaultsResponse { drills: answer.drill.into_iter().collect() });
            terminal::print(&format!("{table}{}", if dry_run { "not begun (dry run)\n" } else { "" }))
        }
        FaultCommand::Clear { name } => {
            let request = ClearFaultRequest { name: name.clone() };
            control_plane.call(request, async |admin, request| admin.clear_fault(request).await).await?;
            terminal::print_line(&format!("{name} has ended; agents end it when they hear of it"))
        }
    }
}

fn request(args: InjectArgs) -> Result<InjectFaultRequest, Failure> {
    let InjectArgs { name, effect, ttl, agents, deployments, virtual_models, percent, reason, dry_run } =
        args;
    let fault = Fault {
        name,
        agents,
        deployments,
        virtual_models,
        percent: percent.unwrap_or_default(),
        effect: Some(wire_effect(effect)?),
        reason,
    };
    Ok(InjectFaultRequest { fault: Some(fault), ttl: Some(wire("--ttl", ttl)?), validate_only: dry_run })
}

/// The parser lets exactly one through.
fn wire_effect(effect: Effect) -> Result<fault::Effect, Failure> {
    Ok(match effect {
        Effect { latency: Some(latency), .. } => fault::Effect::Latency(wire("--latency", latency)?),
        Effect { error: Some(status), .. } => fault::Effect::ErrorStatus(status),
        Effect { stall: true, .. } => fault::Effect::Stall(StallFault {}),
        Effect { cut_after: Some(after_bytes), .. } => fault::Effect::Cut(CutFault { after_bytes }),
        Effect { control_plane_loss: true, .. } => fault::Effect::ControlPlaneLoss(ControlPlaneLossFault {}),
        Effect { .. } => return Err(Failure::WrongInput(anyhow!("name an effect, as --latency 2s"))),
    })
}

fn wire(flag: &str, duration: std::time::Duration) -> Result<prost_types::Duration, Failure> {
    duration.try_into().map_err(|_| Failure::wrong_input(format!("{flag} {duration:?} is too long")))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn typed(line: &str) -> Result<InjectFaultRequest, String> {
        let words = format!("trunkline fault inject {line}");
        let cli = Cli::try_parse_from(words.split_whitespace()).map_err(|error| error.to_string())?;
        let Command::Fault(FaultArgs { command: FaultCommand::Inject(args), .. }) = cli.command else {
            panic!("not a drill: {cli:?}")
        };
        request(*args).map_err(|failure| failure.to_string())
    }

    #[test]
    fn every_effect_can_be_typed() {
        let check = |line: &str, expected: fault::Effect| {
            assert_eq!(typed(line).unwrap().fault.unwrap().effect, Some(expected), "{line}");
        };
        let two = prost_types::Duration { seconds: 2, nanos: 0 };
        check("d --latency 2s --ttl 10m", fault::Effect::Latency(two));
        check("d --error 503 --ttl 10m", fault::Effect::ErrorStatus(503));
        check("d --stall --ttl 10m", fault::Effect::Stall(StallFault {}));
        check("d --cut-after 100 --ttl 10m", fault::Effect::Cut(CutFault { after_bytes: 100 }));
        check("d --control-plane-loss --ttl 10m", fault::Effect::ControlPlaneLoss(ControlPlaneLossFault {}));
    }

    #[test]
    fn place_and_share_are_in_the_request() {
        let request = typed(
            "d --stall --ttl 1h --agent a1 --agent a2 --deployment swift --virtual-model chat --percent 30 --dry-run",
        )
        .unwrap();
        assert_eq!(request.ttl.unwrap().seconds, 3_600);
        assert!(request.validate_only);
        let fault = request.fault.unwrap();
        assert_eq!(fault.agents, ["a1", "a2"]);
        assert_eq!((fault.deployments, fault.virtual_models), (vec!["swift".into()], vec!["chat".into()]));
        assert_eq!(fault.percent, 30);
    }

    #[test]
    fn no_effect_two_effects_and_no_end_are_refused() {
        for (line, part) in [
            ("d --ttl 1m", "--latency"),
            ("d --stall --error 503 --ttl 1m", "cannot be used with"),
            ("d --stall", "--ttl"),
            ("d --error 200 --ttl 1m", "400..=599"),
            ("d --stall --percent 0 --ttl 1m", "1..=100"),
            ("d --control-plane-loss --deployment a/b --ttl 1m", "cannot be used with"),
        ] {
            let refused = typed(line).unwrap_err();
            assert!(refused.contains(part), "{line}: {refused}");
        }
    }
}
