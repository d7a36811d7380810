"""A matching model of the plainest kind: lists of orders, sorted on every use. It imports nothing of the
project.

Price-time priority, GTC, IOC, FOK, post-only, reduce-only, amend, icebergs and cancel-oldest self-trade prevention, for
accounts that always have enough margin. Sides are +1 (buy) and -1 (sell).
"""


class NaiveBook:
    """One market; `fills` lists (maker order, taker order, price, size) in the order in which they
    happened."""

    def __init__(self):
        self.orders = []  # dictionaries, oldest first
        self.positions = {}
        self.fills = []
        self.arrivals = 0

    def place(
        self,
        number,
        account,
        side,
        size,
        price,
        tif="GTC",
        post_only=False,
        reduce_only=False,
        old=None,
        display=0,
    ):
        """Place order `number`, replacing `old` when given. Returns False when it is refused."""
        replaced = self.find(old) if old is not None else None
        carried = replaced["filled"] if replaced else 0
        if old is not None and (replaced is None or carried >= size):
            return False
        if reduce_only and self.positions.get(account, 0) * side >= 0:
            return False
        order = {
            "number": number,
            "account": account,
            "side": side,
            "size": size,
            "price": price,
            "filled": carried,
            "reduce_only": reduce_only,
            "display": display or size,
        }
        crossing = self.opposite(order)
        if post_only and crossing:
            return False
        if tif == "FOK" and self.fillable(order) < size - carried:
            return False
        if replaced is not None:
            if self.keeps_place(replaced, order) and not crossing and tif == "GTC":
                order["arrival"], order["shown"] = replaced["arrival"], size - carried
                self.orders[self.orders.index(replaced)] = order
                return True
            self.orders.remove(replaced)
        self.match(order)
        done = order["filled"] == size
        useless = reduce_only and self.positions.get(account, 0) * side >= 0
        if tif == "GTC" and not done and not useless:
            self.queue(order)
            self.orders.append(order)
        self.drop_useless()
        return True

    def queue(self, order):
        """At the back, with as much of it in sight as it shows at a time."""
        self.arrivals += 1
        order["arrival"] = self.arrivals
        order["shown"] = min(order["display"], order["size"] - order["filled"])

    def cancel(self, number):
        """End an order; False when it does not wait."""
        order = self.find(number)
        if order is not None:
            self.orders.remove(order)
        return order is not None

    def find(self, number):
        for order in self.orders:
            if order["number"] == number:
                return order
        return None

    @staticmethod
    def keeps_place(old, new):
        smaller = new["size"] - new["filled"] <= old["size"] - old["filled"]
        whole = old["display"] >= old["size"] and new["display"] >= new["size"]
        return whole and old["price"] == new["price"] and smaller and old["reduce_only"] == new["reduce_only"]

    def opposite(self, order):
        """Waiting orders that the order's price meets, best price and then oldest first."""
        side = order["side"]
        met = [
            other
            for other in self.orders
            if other["side"] == -side and side * (order["price"] - other["price"]) >= 0
        ]
        return sorted(met, key=lambda other: (side * other["price"], other["arrival"]))

    def match(self, order):
        while self.opposite(order):
            maker = self.opposite(order)[0]
            if order["filled"] == order["size"] or not self.allowed(order, self.positions):
                return
            if maker["account"] == order["account"]:
                self.orders.remove(maker)
                continue
            lots = min(
                self.allowed(order, self.positions),
                self.allowed(maker, self.positions),
                maker["shown"],
            )
            if lots == 0:
                self.orders.remove(maker)
                continue
            self.trade(maker, order, lots)
            maker["shown"] -= lots
            if maker["filled"] == maker["size"]:
                self.orders.remove(maker)
            elif maker["shown"] == 0:
                self.queue(maker)
            elif order["filled"] < order["size"] and self.allowed(order, self.positions):
                self.orders.remove(maker)
            else:
                return

    def trade(self, maker, taker, lots):
        self.fills.append((maker["number"], taker["number"], maker["price"], lots))
        for party in (maker, taker):
            party["filled"] += lots
            held = self.positions.get(party["account"], 0)
            self.positions[party["account"]] = held + party["side"] * lots

    @staticmethod
    def allowed(order, positions):
        """Lots that the order may still trade."""
        left = order["size"] - order["filled"]
        if not order["reduce_only"]:
            return left
        held = positions.get(order["account"], 0)
        return min(left, abs(held)) if held * order["side"] < 0 else 0

    def fillable(self, order):
        """Lots that would trade at once, found by trying on a copy."""
        copy = NaiveBook()
        copy.orders = [dict(other) for other in self.orders]
        copy.positions, copy.arrivals = dict(self.positions), self.arrivals
        trial = dict(order)
        copy.match(trial)
        return trial["filled"] - order["filled"]

    def drop_useless(self):
        """Reduce-only orders that no longer oppose their position leave."""
        self.orders = [
            order
            for order in self.orders
            if not order["reduce_only"] or self.positions.get(order["account"], 0) * order["side"] < 0
        ]
