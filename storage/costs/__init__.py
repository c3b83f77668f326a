"""What calls of providers cost, and what budgets allow: rows of the catalog, never of Redis, for this is money.

A call is reserved before it is made and settled after it; what died in between is charged in full. Costs are sums by
hour, tenant, collection, job and model, and outlive the jobs and collections that they were for.
"""

from .amounts import Amounts
from .bills import Bill, settle, settle_bill
from .lapses import charge_lapsed
from .ordered import OrderCosts, give_back_unordered, move_to_order, set_aside_for_order, settle_order
from .payees import Payee
from .purses import Purse, read_month
from .reports import GROUPS, CostRow, Group, read_costs
from .reservations import ForBatch, Until, reserve
from .searches import SearchCosts
from .speeds import read_speed

__all__ = [
    "GROUPS",
    "Amounts",
    "Bill",
    "CostRow",
    "ForBatch",
    "Group",
    "OrderCosts",
    "Payee",
    "Purse",
    "SearchCosts",
    "Until",
    "charge_lapsed",
    "give_back_unordered",
    "move_to_order",
    "read_costs",
    "read_month",
    "read_speed",
    "reserve",
    "set_aside_for_order",
    "settle",
    "settle_bill",
    "settle_order",
]
