"""What a config.yaml means where it says nothing, as a model class of Truss expects it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# What a model reads in its `config` although its config.yaml does not say it: Truss writes every
# default into the file that its server reads (version 0.18.25), so models index without asking.
DEFAULTS: Final[Mapping[str, Any]] = {
    "apply_library_patches": True,
    "base_image": None,
    "bis_llm": None,
    "build": {
        "arguments": {},
        "model_server": "TrussServer",
        "no_cache": False,
        "secret_to_path_mapping": {},
    },
    "build_commands": [],
    "bundled_packages_dir": "packages",
    "cache_internal": [],
    "data_dir": "data",
    "description": None,
    "docker_server": None,
    "environment_variables": {},
    "examples_filename": "examples.yaml",
    "external_data": None,
    "external_package_dirs": [],
    "input_type": "Any",
    "live_reload": False,
    "model_cache": [],
    "model_class_filename": "model.py",
    "model_class_name": "Model",
    "model_framework": "custom",
    "model_metadata": {},
    "model_module_dir": "model",
    "model_name": None,
    "model_type": "Model",
    "python_version": "py313",
    "requirements": [],
    "requirements_file": None,
    "resources": {"accelerator": None, "cpu": "1", "memory": "2Gi", "use_gpu": False},
    "runtime": {
        "egress_restrictions": None,
        "enable_debug_logs": False,
        "enable_tracing_data": False,
        "health_checks": {
            "restart_check_delay_seconds": None,
            "restart_threshold_seconds": None,
            "startup_threshold_seconds": None,
            "stop_traffic_threshold_seconds": None,
        },
        "is_websocket_endpoint": False,
        "oidc": {"enabled": None},
        "predict_concurrency": 1,
        "remote_ssh": {"enabled": False},
        "request_backpressure": {"policy": None},
        "streaming_read_timeout": 60,
        "transport": {"kind": "http"},
        "truss_server_version_override": None,
    },
    "secrets": {},
    "spec_version": "2.0",
    "system_packages": [],
    "training_checkpoints": None,
    "trt_llm": None,
    "use_local_src": False,
    "weights": [],
}
