"""The plugin that verl finds by the entry-point group `verl.plugins` and loads in every process.

Importing this module registers everything; importing it twice, or from two installations, changes
nothing. verl hides an error raised here (it logs it at DEBUG and goes on without the plugin), so
`check` exists to be called by `convsearch doctor` and by a test.
"""

import importlib

from convsearch.errors import ConvsearchError, install_command

REWARD_MANAGER = "rewrite_r1"
AGENT = "search_agent"
ROLLOUT = "hf_cpu"
VERL = "0.9.1"
"""The version this plugin is written for."""
OK = "ok"


def register() -> None:
    """Registers platform, rendezvous, rollout, reward managers, agent loop, CPU engine. Idempotent.

    The order matters: modules of verl ask for the platform while they are being imported.
    """
    from convsearch.network import torch_store
    from convsearch_verl import platform_cpu

    platform_cpu.install()
    torch_store.install()
    from verl.workers.rollout.base import _ROLLOUT_REGISTRY
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    _ROLLOUT_REGISTRY[(ROLLOUT, "async")] = "convsearch_verl.hf_cpu.WeightSender"
    RolloutReplicaRegistry.register(ROLLOUT, _replica_class)
    # these register by their decorators
    from convsearch_verl import agent_reward, reward_manager, search_loop  # noqa: F401

    if platform_cpu.selected():
        from convsearch_verl import engine_cpu

        engine_cpu.install()


def _replica_class() -> type:
    return importlib.import_module("convsearch_verl.hf_cpu").HfReplica


def check() -> dict[str, str]:
    """What verl must find -> "ok", or a sentence that says what is wrong and what to do."""
    from importlib.metadata import PackageNotFoundError, entry_points, version

    try:
        installed = version("verl")
    except PackageNotFoundError:
        return {"verl": f"verl is not installed; run {install_command('train')}"}
    pinned = installed == VERL
    report = {"verl": OK if pinned else f"{installed} is installed; run pip install verl=={VERL}"}
    named = {e.value for e in entry_points(group="verl.plugins")}
    report["entry point"] = (
        OK if __name__ in named else "verl cannot find the plugin; run pip install -e . again"
    )
    for name, probe in _PROBES.items():
        try:
            probe()
            report[name] = OK
        except (ImportError, LookupError, ValueError, AttributeError, ConvsearchError) as error:
            report[name] = f"{type(error).__name__}: {error}; run pip install -e '.[train]' again"
    return report


def _probe_reward_manager() -> None:
    from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls

    get_reward_manager_cls(REWARD_MANAGER)
    get_reward_manager_cls(AGENT)


def _probe_agent_loop() -> None:
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry

    if AGENT not in _agent_loop_registry:
        raise LookupError(f"the agent loop {AGENT!r} is not registered")


def _probe_rollout() -> None:
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    RolloutReplicaRegistry.get(ROLLOUT)


def _probe_platform() -> None:
    from verl.plugin.platform import PlatformRegistry

    if PlatformRegistry.get("cpu") is None:
        raise LookupError("the platform 'cpu' is not registered")


def _probe_overlay() -> None:
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_module(config_module="verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=[f"reward_model.reward_manager={REWARD_MANAGER}"])
    if config.reward.reward_manager.name != REWARD_MANAGER or "retriever" not in config:
        raise LookupError("Hydra did not load the overlay (hydra_plugins/convsearch_overlay.py)")


_PROBES = {
    "reward manager": _probe_reward_manager,
    "agent loop": _probe_agent_loop,
    "rollout": _probe_rollout,
    "platform": _probe_platform,
    "overlay": _probe_overlay,
}

register()
