"""Dagster's private names that only tests use, as version 1.13.27 has them; no other test module imports any."""

from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.freshness import (
    FreshnessState,
    FreshnessStateChange,
    TimeWindowFreshnessPolicy,
)
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.events import StepMaterializationData
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher import LaunchRunContext
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.storage import tags
from dagster._core.test_utils import create_run_for_test, freeze_time
from dagster._daemon.monitoring.run_monitoring import monitor_started_run
from dagster._daemon.sensor import MIN_INTERVAL_LOOP_TIME
from dagster._grpc.client import DagsterGrpcClient
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster._utils.schedules import schedule_execution_time_iterator
from dagster._utils.warnings import BetaWarning, PreviewWarning, SupersessionWarning

__all__ = [
    "MIN_INTERVAL_LOOP_TIME",
    "AssetCheckEvaluationTargetMaterializationData",
    "AssetGraph",
    "BetaWarning",
    "DagsterGrpcClient",
    "FreshnessState",
    "FreshnessStateChange",
    "InstanceRef",
    "InstigatorState",
    "InstigatorStatus",
    "InstigatorType",
    "LaunchRunContext",
    "PreviewWarning",
    "RegisteredCodeLocationOrigin",
    "RemoteInstigatorOrigin",
    "RemoteJobOrigin",
    "RemoteRepositoryOrigin",
    "ScheduleInstigatorData",
    "SensorExecutionData",
    "SensorInstigatorData",
    "StepMaterializationData",
    "SupersessionWarning",
    "TickData",
    "TickStatus",
    "TimeWindowFreshnessPolicy",
    "create_run_for_test",
    "freeze_time",
    "monitor_started_run",
    "schedule_execution_time_iterator",
    "serializable_error_info_from_exc_info",
    "tags",
]
