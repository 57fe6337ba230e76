"""${message}."""

import sqlalchemy as sa
from alembic import op
${imports + "\n" if imports else ""}
revision = "${up_revision}"
down_revision = ${f'"{down_revision}"' if down_revision else None}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables from the revision before to this one."""
    ${upgrades}


def downgrade() -> None:
    """Change them back."""
    ${downgrades}
