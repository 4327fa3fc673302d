"""Triangle meshes: reading, closedness, and exact signed distances."""

from collections import Counter
from dataclasses import dataclass
from math import tau
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from zoo.problems.parts import DataFormatError

_PAIRS_AT_ONCE = 1 << 20
"""Pairs of points and triangles held at one time: arrays of 8 MiB, which stay in cache."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Surface:
    """Triangles in space.

    Parameters
    ----------
    vertices
        ``[n, 3]``, float64.
    faces
        Three vertices each, ``[m, 3]`` int64.
    """

    vertices: np.ndarray
    faces: np.ndarray

    @property
    def corners(self) -> np.ndarray:
        """Corners of the triangles, ``[m, 3, 3]``: face, corner, coordinate."""
        corners: np.ndarray = self.vertices[self.faces]
        return corners

    def normalised(self) -> "Surface":
        """Move the middle of the bounding box to 0 and scale the farthest vertex to 1."""
        low, high = self.vertices.min(0), self.vertices.max(0)
        centred = self.vertices - (low + high) / 2
        return Surface(vertices=centred / np.linalg.norm(centred, axis=1).max(), faces=self.faces)

    def num_open_edges(self) -> int:
        """Count edges that are not shared by two faces, once in each direction."""
        sides = np.concatenate([self.faces[:, [k, (k + 1) % 3]] for k in range(3)])
        counts = Counter(map(tuple, sides.tolist()))
        edges = {(min(edge), max(edge)) for edge in counts}
        return sum(counts[a, b] != 1 or counts[b, a] != 1 for a, b in edges)


def read_obj(path: Path) -> Surface:
    """Read vertices and faces of a Wavefront ``.obj`` file.

    Polygons become fans of triangles around their first corner. Vertices at one place are one
    vertex; faces that have no area because of it are left out, as are vertices of no face.

    Raises
    ------
    DataFormatError
        If the file is damaged, or has no faces.
    """
    places: list[list[float]] = []
    faces: list[tuple[int, int, int]] = []
    number = 0
    try:
        for text in path.read_text(encoding="utf-8").splitlines():
            number += 1
            kind, *fields = text.split() or [""]
            if kind == "v":
                x, y, z = map(float, fields[:3])
                places.append([x, y, z])
            elif kind == "f":
                corners = [_corner(field, len(places)) for field in fields]
                first, *others = corners
                faces += [(first, a, b) for a, b in zip(others, others[1:], strict=False)]
    except (OSError, ValueError) as error:
        raise DataFormatError(f"Cannot read line {number} of {path}: {error}.") from error
    if not faces or not np.isfinite(places).all():
        raise DataFormatError(f"Expected finite vertices and faces in {path}, got {len(faces)}.")
    return _welded(np.array(places), np.array(faces))


def signed_distance(surface: Surface, points: np.ndarray) -> np.ndarray:
    """Compute exact distances to a closed surface, negative inside; ``[n]``, float64.

    Inside is where the generalised winding number [1]_ is nearer to one turn than to none,
    whichever way the faces are turned.

    Parameters
    ----------
    points
        ``[n, 3]``.

    References
    ----------
    .. [1] Jacobson et al., "Robust inside-outside segmentation using generalized winding numbers",
       ACM Transactions on Graphics 32(4), 2013.
    """
    inside = np.abs(winding_number(surface, points)) > 0.5
    signed: np.ndarray = np.where(inside, -1, 1) * distance(surface, points)
    return signed


def distance(surface: Surface, points: np.ndarray) -> np.ndarray:
    """Compute exact distances to the nearest triangle, ``[n]`` float64.

    Only triangles whose enclosing ball comes nearer than the nearest vertex are looked at.
    """
    corners = surface.corners
    centres = corners.mean(1)
    radii = np.linalg.norm(corners - centres[:, None], axis=2).max(1)
    nearest, _ = cKDTree(surface.vertices).query(points)
    best: np.ndarray = np.asarray(nearest, np.float64)
    step = max(1, _PAIRS_AT_ONCE // len(corners))
    for start in range(0, len(points), step):
        chunk = slice(start, start + step)
        gaps = np.linalg.norm(points[chunk, None] - centres, axis=2) - radii
        which, face = np.nonzero(gaps <= best[chunk, None] + 1e-12)
        found = _to_triangles(points[chunk][which], corners[face])
        np.minimum.at(best[chunk], which, found)
    return best


def winding_number(surface: Surface, points: np.ndarray) -> np.ndarray:
    """Count how often a surface turns around points, ``[n]`` float64.

    The solid angle of a triangle with corners ``a``, ``b``, ``c`` seen from a point at 0 is
    ``2 atan2(det(a, b, c), |a||b||c| + (a.b)|c| + (b.c)|a| + (c.a)|b|)`` [1]_; products of a point
    and a triangle are expanded, so each is a product of matrices.

    References
    ----------
    .. [1] Van Oosterom and Strackee, "The solid angle of a plane triangle", IEEE Transactions on
       Biomedical Engineering 30(2), 1983, Eq. (8).
    """
    a, b, c = np.moveaxis(surface.corners, 1, 0)
    spanned = np.cross(a, b) + np.cross(b, c) + np.cross(c, a)
    volumes = np.einsum("ij,ij->i", a, np.cross(b, c))
    turns = np.empty(len(points))
    step = max(1, _PAIRS_AT_ONCE // len(surface.faces))
    for start in range(0, len(points), step):
        chunk = points[start : start + step]
        square = np.einsum("ij,ij->i", chunk, chunk)[:, None]
        lengths = np.linalg.norm(chunk[:, None] - surface.vertices, axis=2)
        to_a, to_b, to_c = (lengths[:, surface.faces[:, k]] for k in range(3))
        below = to_a * to_b * to_c
        for first, second, length in ((a, b, to_c), (b, c, to_a), (c, a, to_b)):
            products = np.einsum("ij,ij->i", first, second) - chunk @ (first + second).T + square
            below += products * length
        angles = np.arctan2(volumes - chunk @ spanned.T, below)
        turns[start : start + step] = 2 * angles.sum(1) / (2 * tau)
    return turns


def sample(surface: Surface, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw points on a surface, evenly by area, ``[count, 3]`` float64."""
    corners = surface.corners
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=1)
    face = rng.choice(len(areas), size=count, p=areas / areas.sum())
    weights = rng.dirichlet(np.ones(3), size=count)  # even on a triangle
    points: np.ndarray = np.einsum("ni,nij->nj", weights, corners[face])
    return points


def _corner(field: str, num_vertices: int) -> int:
    """Return the vertex of ``v``, ``v/vt`` or ``v//vn``; negative numbers count from the end."""
    number = int(field.partition("/")[0])
    position = number - 1 if number > 0 else num_vertices + number
    if not number or not 0 <= position < num_vertices:
        raise ValueError(f"there is no vertex {number} among the {num_vertices} before it")
    return position


def _welded(places: np.ndarray, faces: np.ndarray) -> Surface:
    used, faces = np.unique(faces, return_inverse=True)
    vertices, one = np.unique(places[used], axis=0, return_inverse=True)
    faces = one.ravel()[faces.reshape(-1, 3)]
    a, b, c = faces.T
    return Surface(vertices=vertices, faces=faces[(a != b) & (b != c) & (c != a)])


def _to_triangles(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Compute the distance of each point to its triangle, ``[n]``.

    It is that to the plane where the foot lies inside of the triangle, else to the nearest edge.
    """
    a, b, c = np.moveaxis(corners, 1, 0)
    normal = np.cross(b - a, c - a)
    square = np.maximum(_dot(normal, normal), np.finfo(np.float64).tiny)
    edges = [_to_segment(points, start, end) for start, end in ((a, b), (b, c), (c, a))]
    inside = np.ones(len(points), bool)
    for start, end in ((a, b), (b, c), (c, a)):
        inside &= _dot(np.cross(end - start, points - start), normal) > 0
    height = np.abs(_dot(points - a, normal)) / np.sqrt(square)
    nearest: np.ndarray = np.where(inside, height, np.minimum.reduce(edges))
    return nearest


def _to_segment(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    along, ahead = end - start, points - start
    length = np.maximum(_dot(along, along), np.finfo(np.float64).tiny)
    share = np.clip(_dot(ahead, along) / length, 0, 1)
    distances: np.ndarray = np.linalg.norm(ahead - share[:, None] * along, axis=1)
    return distances


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    products: np.ndarray = np.einsum("ij,ij->i", a, b)
    return products
