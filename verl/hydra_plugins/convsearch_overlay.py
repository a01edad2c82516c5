"""Makes verl's own `ppo_trainer` configuration accept the keys of rewrite_r1 and of search agents.

verl 0.9 refuses `retriever.topk=100` and silently ignores the older spellings
`reward_model.reward_manager=...` and `custom_reward_function.path=...`. Hydra finds this module by
the name of its package, puts an overlay before verl's configuration folder, and the overlay adds a
few keys to the one file. No file of verl is copied or changed; today's spellings `reward.*` win.
"""

from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

SCHEME = "convsearch-overlay"
TRAINERS = ("ppo_trainer", "ppo_megatron_trainer")
"""The configurations of verl that get the overlay."""
_FOLDER = "verl/trainer/config"

OVERLAY = {
    "retriever": {
        "url": "${oc.env:RETRIEVER_URL,null}",
        "topk": 100,
        "timeout_s": 120.0,
        "attempts": 6,
        "batch_size": 64,
        "max_wait_s": 0.05,
        "reward": "piecewise",
    },
    "search_agent": {
        "strategy": "expand_search",
        "num_variants": None,
        "tool_format": "hermes",
        "topk": 3,
        "max_documents": None,
        "max_result_tokens": 1024,
        "max_turns": 4,
        "max_turn_tokens": None,
        "squeezer": "none",
        "llm": {
            "model": "",
            "url": "",
            "cache": "",
            "concurrency": 16,
            "attempts": 12,
            "deadline_s": 60.0,
            "max_input_tokens": 4096,
            "max_total_tokens": None,
            "usd_per_million_input": 0.0,
            "usd_per_million_output": 0.0,
        },
        "reward": {
            "metric": "em",
            "right_valid": 1.0,
            "right_broken": 0.8,
            "wrong_valid": 0.2,
            "wrong_broken": 0.1,
            "pay_form_without_search": False,
            "retrieval_bonus": 0.0,
            "decomposition_weight": 0.0,
            "search_count_weight": 0.0,
            "punish_searches": False,
        },
    },
    "custom_reward_function": {"name": "compute_score"},
    "reward_model": {"reward_manager": "naive"},
    "reward": {
        "reward_manager": {"name": "${reward_model.reward_manager}"},
        "custom_reward_function": {
            "path": "${custom_reward_function.path}",
            "name": "${custom_reward_function.name}",
        },
    },
    "ray_kwargs": {
        "ray_init": {
            "runtime_env": {"worker_process_setup_hook": "convsearch_verl.queue_sockets.install"}
        }
    },
    "rollout_dump": {"folder": None},
    # Reward manager -> module of the sampler it needs; every other manager keeps verl's own.
    "samplers": {
        "rewrite_r1": "pkg://convsearch_verl.replay",
        "search_agent": "pkg://convsearch_verl.replay",
    },
    "trainer": {
        "v1": {
            "sampler": {
                "custom_sampler": {
                    "path": "${oc.select:samplers.${reward.reward_manager.name},null}",
                    "name": "strict_replay_buffer",
                },
                "sampler_kwargs": {
                    "poll_interval_s": 0.1,
                    "reward_manager": "${reward.reward_manager.name}",
                    "retriever": "${retriever}",
                    "search_agent": "${search_agent}",
                    "rollout": "${oc.select:actor_rollout_ref.rollout.name,null}",
                    "filter_groups": "${algorithm.filter_groups}",
                    "rollout_dump": "${rollout_dump.folder}",
                    "tokenizer": "${oc.select:actor_rollout_ref.model.path,null}",
                    "train_batch_size": "${data.train_batch_size}",
                    "rollouts": "${actor_rollout_ref.rollout.n}",
                    "gen_batch_size": "${oc.select:data.gen_batch_size,null}",
                    "mini_batch": "${actor_rollout_ref.actor.ppo_mini_batch_size}",
                },
            }
        }
    },
}


class OverlaySource(ConfigSource):
    """`convsearch-overlay://<path of verl's folder>`: its trainer configurations plus OVERLAY."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider=provider, path=path)
        scheme = self.path.split("://")[0] if "://" in self.path else "file"
        source = SourcesRegistry.instance().resolve(scheme)
        self.upstream: ConfigSource = source(provider, self.path)

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def available(self) -> bool:
        return self.upstream.available()

    def is_group(self, config_path: str) -> bool:
        return False

    def is_config(self, config_path: str) -> bool:
        return config_path.removesuffix(".yaml") in TRAINERS

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return []

    def load_config(self, config_path: str) -> ConfigResult:
        result = self.upstream.load_config(config_path)
        merged = OmegaConf.merge(result.config, OVERLAY)
        assert isinstance(merged, DictConfig)
        result.config = merged
        return result


class OverlaySearchPath(SearchPathPlugin):
    """Puts the overlay first where the program is one of verl's trainers, and nowhere else."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        main = next((e for e in search_path.get_path() if e.provider == "main"), None)
        if main is None or main.path is None:
            return
        folder = main.path.replace(".", "/").replace("\\", "/").rstrip("/")
        if folder.endswith(_FOLDER):
            search_path.prepend(SCHEME, f"{SCHEME}://{main.path}", anchor="main")
