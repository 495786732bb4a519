"""Which environments of MiniGrid the tensor engine knows, and the task of each."""

from __future__ import annotations

from minigrid.envs import (
    blockedunlockpickup,
    crossing,
    distshift,
    doorkey,
    dynamicobstacles,
    empty,
    fetch,
    fourrooms,
    gotodoor,
    gotoobject,
    keycorridor,
    lavagap,
    lockedroom,
    memory,
    multiroom,
    obstructedmaze,
    obstructedmaze_v1,
    putnear,
    redbluedoors,
    unlock,
    unlockpickup,
)
from minigrid.minigrid_env import MiniGridEnv

from envs.memory_tasks.junctions import JunctionsEnv
from envs.memory_tasks.memory import MemoryEnv
from envs.memory_tasks.t_maze import TMazeEnv
from envs.minigrid.tasks.carry import Fetch, PickUp, PutNear
from envs.minigrid.tasks.doors import RedBlueDoors, Unlock
from envs.minigrid.tasks.dynamic_obstacles import DynamicObstacles
from envs.minigrid.tasks.ends import Ends
from envs.minigrid.tasks.go_to import GoTo
from envs.minigrid.tasks.task import Task

TASKS: dict[type[MiniGridEnv], type[Task]] = {
    empty.EmptyEnv: Task,
    crossing.CrossingEnv: Task,
    lavagap.LavaGapEnv: Task,
    distshift.DistShiftEnv: Task,
    fourrooms.FourRoomsEnv: Task,
    multiroom.MultiRoomEnv: Task,
    doorkey.DoorKeyEnv: Task,
    lockedroom.LockedRoomEnv: Task,
    redbluedoors.RedBlueDoorEnv: RedBlueDoors,
    unlock.UnlockEnv: Unlock,
    gotodoor.GoToDoorEnv: GoTo,
    gotoobject.GoToObjectEnv: GoTo,
    unlockpickup.UnlockPickupEnv: PickUp,
    blockedunlockpickup.BlockedUnlockPickupEnv: PickUp,
    keycorridor.KeyCorridorEnv: PickUp,
    obstructedmaze.ObstructedMaze_1Dlhb: PickUp,
    obstructedmaze.ObstructedMaze_Full: PickUp,
    obstructedmaze_v1.ObstructedMaze_Full_V1: PickUp,
    fetch.FetchEnv: Fetch,
    putnear.PutNearEnv: PutNear,
    dynamicobstacles.DynamicObstaclesEnv: DynamicObstacles,
    memory.MemoryEnv: Ends,
    MemoryEnv: Ends,
    TMazeEnv: Ends,
    JunctionsEnv: Ends,
}
"""By class, exactly: a subclass may have rules of its own."""
